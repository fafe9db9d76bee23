local helpers = require "spec.helpers"
local stacks = require "spec.mtls-auth.stack"
local cjson = require "cjson"
local file = require "pl.file"


for _, strategy in helpers.all_strategies() do
  for _, protocol in stacks.each_protocol() do
    local title = "Plugin: mtls-auth (entities %s) [#" .. strategy .. ", #" .. protocol .. "]"

    -- A declarative file is Kong's own only where Kong has no database.
    for _, source in ipairs(strategy == "off" and { "declarative", "admin" } or { "admin" }) do
      describe(title:format("by " .. source), function()
        local stack

        lazy_setup(function()
          stack = stacks.new(strategy, protocol)
          stack:insert_consumer("alice")
          stack:insert_consumer("employee", "emp-7")
          stack:insert_protected_route("protected.test", { cache_ttl = 0 })
          stack:start { entities = source }
        end)

        lazy_teardown(function()
          stack:stop()
        end)

        it("are CAs by id, and consumers by username and custom_id", function()
          stack.passed_as(stack:get("protected.test", "alice"), "alice")
          stack.passed_as(stack:get("protected.test", "numbered"), "employee")
          stack.unverified(stack:get("protected.test", "nobody"))
          stack.unverified(stack:get("protected.test", "second-alice"))
        end)

        if strategy ~= "off" then
          it("are what they are now", function()
            stack.unverified(stack:get("protected.test", "mapped"))
            local admin_client = helpers.admin_client()
            assert.res_status(201, admin_client:post("/consumers", {
              body = { username = "mapped.example" }, headers = { ["Content-Type"] = "application/json" },
            }))
            helpers.pwait_until(function()
              stack.passed_as(stack:get("protected.test", "mapped"), "mapped.example")
            end, stacks.PATIENCE)
            assert.res_status(204, admin_client:delete("/consumers/mapped.example"))
            helpers.pwait_until(function()
              stack.unverified(stack:get("protected.test", "mapped"))
            end, stacks.PATIENCE)
            admin_client:close()
          end)
        end
      end)
    end

    describe(title:format("by a file of the plugin server's own"), function()
      local stack, alice

      local function write(credentials)
        assert(file.write(stack:path("entities.json"), cjson.encode {
          _format_version = "3.0",
          ca_certificates = { { id = stack.ca.id, cert = stack:pem("ca") } },
          consumers = { { id = alice.id, username = "alice", mtls_auth_credentials = credentials } },
        }))
      end

      lazy_setup(function()
        stack = stacks.new(strategy, protocol)
        alice = stack:insert_consumer("alice")
        stack:insert_protected_route("protected.test")
        write { { subject_name = "mapped.example", id = "mapping-1" } }
        stack:start { entities = "kong", server = "--declarative-config " .. stack:path("entities.json") }
      end)

      lazy_teardown(function()
        stack:stop()
      end)

      it("are also mtls_auth_credentials", function()
        local headers = stack.passed_as(stack:get("protected.test", "mapped"), "alice")
        assert.equal(alice.id, headers["x-consumer-id"])
        assert.equal("mapping-1", headers["x-credential-identifier"])
        stack.passed_as(stack:get("protected.test", "alice"), "alice")
        stack.unverified(stack:get("protected.test", "numbered"))
      end)

      it("are what stands there now, or did before it was broken", function()
        write { { subject_name = "emp-7" } }
        helpers.pwait_until(function()
          stack.passed_as(stack:get("protected.test", "numbered"), "alice")
        end, stacks.PATIENCE)
        stack.unverified(stack:get("protected.test", "mapped"))
        assert(file.write(stack:path("entities.json"), "consumers: ["))
        assert.logfile().has.line("the last good one stays", true, stacks.PATIENCE)
        stack.passed_as(stack:get("protected.test", "numbered"), "alice")
      end)
    end)

    describe(title:format("by Kong itself"), function()
      local stack, alice

      lazy_setup(function()
        stack = stacks.new(strategy, protocol)
        alice = stack:insert_consumer("alice")
        stack:insert_consumer("anonymous")
        stack:insert_consumer("employee", "emp-7")
        local config = { ca_certificates = { stack:pem("ca") }, consumer_by = { "username" } }
        stack:insert_protected_route("protected.test", config)
        stack:insert_protected_route("anonymous.test", kong.table.merge(config, { anonymous = "anonymous" }))
        stack:insert_protected_route("id.test", { anonymous = "anonymous" })
        stack:start { entities = "kong" }
      end)

      lazy_teardown(function()
        stack:stop()
      end)

      it("are CAs as PEM, and consumers by username", function()
        local headers = stack.passed_as(stack:get("protected.test", "alice"), "alice")
        assert.equal(alice.id, headers["x-consumer-id"])
        stack.unverified(stack:get("protected.test", "mallory"))
        stack.unverified(stack:get("protected.test", "numbered"))
        stack.passed_as(stack:get("anonymous.test", "nobody"), "anonymous")
        stack.passed_as(stack:get("anonymous.test"), "anonymous")
      end)

      it("are no CAs by id", function()
        stack.refused(stack:get("id.test", "alice"), 500, stacks.TEXTS.fault)
      end)
    end)

    describe(title:format("where their source is down"), function()
      local stack

      lazy_setup(function()
        stack = stacks.new(strategy, protocol)
        stack:insert_consumer("alice")
        stack:insert_consumer("anonymous")
        stack:insert_protected_route("protected.test")
        stack:insert_protected_route("anonymous.test", { anonymous = "anonymous" })
        -- Nobody listens there.
        stack:start { entities = "kong", server = ("--admin-url http://127.0.0.1:%d"):format(stack.silent_port) }
      end)

      lazy_teardown(function()
        stack:stop()
      end)

      it("let nobody pass, not even as anonymous", function()
        for _, host in ipairs { "protected.test", "anonymous.test" } do
          local arrivals = stack:arrivals()
          stack.refused(stack:get(host, "alice"), 503, stacks.TEXTS.fault)
          assert.equal(arrivals, stack:arrivals())
        end
        assert.logfile().has.line("refused: entity_source_down", true, 10)
      end)
    end)

    describe(title:format("where their source hangs"), function()
      local stack

      lazy_setup(function()
        stack = stacks.new(strategy, protocol)
        stack:insert_consumer("alice")
        stack:insert_consumer("anonymous")
        stack:insert_protected_route("protected.test", { ca_certificates = { stack:pem("ca") } })
        stack:insert_protected_route("anonymous.test", {
          ca_certificates = { stack:pem("ca") }, anonymous = "anonymous",
        })
        stack:start {
          entities = "kong",
          server = ("--admin-url http://127.0.0.1:%d/hang --event-timeout 0.5"):format(stack.upstream_port),
        }
      end)

      lazy_teardown(function()
        stack:stop()
      end)

      it("let nobody wait or pass", function()
        for _, host in ipairs { "protected.test", "anonymous.test" } do
          local arrivals = stack:arrivals()
          stack.refused(stack:get(host, "alice"), 503, stacks.TEXTS.fault)
          assert.equal(arrivals, stack:arrivals())
        end
        assert.logfile().has.line("refused: deadline", true, 10)
      end)
    end)
  end
end
