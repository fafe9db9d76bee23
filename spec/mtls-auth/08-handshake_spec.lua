local helpers = require "spec.helpers"
local stacks = require "spec.mtls-auth.stack"


for _, strategy in helpers.all_strategies() do
  for _, protocol in stacks.each_protocol() do
    local title = "Plugin: mtls-auth (handshake per SNI, %s) [#" .. strategy .. ", #" .. protocol .. "]"

    -- Whether a client that names this server is asked for a certificate, and the names of CAs that it is told.
    local function handshake(stack, sni, version)
      local name = sni and "-servername " .. sni or "-noservername"
      local said = stacks.run(
        "openssl s_client -connect 127.0.0.1:%d %s -%s -msg </dev/null 2>&1 || true",
        stack.shim_port, name, version or "tls1_3"
      )
      assert.matches("Verify return code", said, 1, true)
      local names = {}
      local list = said:match("Acceptable client certificate CA names\n(.-)\nRequested") or ""
      for each in list:gmatch("[^\n]*CN ?= ?[^\n]*") do
        table.insert(names, each:match("CN ?= ?(.*)"))
      end
      table.sort(names)
      return said:find("CertificateRequest", 1, true) ~= nil, names
    end

    describe(title:format("for routes and services"), function()
      local stack

      lazy_setup(function()
        stack = stacks.new(strategy, protocol)
        local bp = stack.bp
        stack:insert_consumer("alice")
        local second = stack:insert_ca("second-ca")
        stack:insert_route("open.test")
        stack:insert_protected_route("silent.test")
        stack:insert_protected_route("named.test", { send_ca_dn = true })
        -- Two routes of one server name, each with a CA of its own.
        for index, ca in ipairs { stack.ca.id, second.id } do
          local route = bp.routes:insert {
            hosts = { "merged.test" }, snis = { "merged.test" }, paths = { "/" .. index },
            service = { id = stack.service.id },
          }
          stack:insert_plugin("mtls-auth", { ca_certificates = { ca }, send_ca_dn = true }, { route = { id = route.id } })
        end
        local service = bp.services:insert { host = "127.0.0.1", port = stack.upstream_port, protocol = "http" }
        for _, name in ipairs { "service-a.test", "service-b.test" } do
          bp.routes:insert { hosts = { name }, snis = { name }, paths = { "/" }, service = { id = service.id } }
        end
        stack:insert_plugin("mtls-auth", { ca_certificates = { stack.ca.id } }, { service = { id = service.id } })
        stack:start()
      end)

      lazy_teardown(function()
        stack:stop()
      end)

      for _, version in ipairs { "tls1_2", "tls1_3" } do
        it("asks where a route needs it, and nowhere else: " .. version, function()
          for name, expected in pairs {
            ["silent.test"] = true, ["SILENT.test"] = true, ["named.test"] = true, ["merged.test"] = true,
            ["service-a.test"] = true, ["service-b.test"] = true, ["open.test"] = false, ["unknown.test"] = false,
          } do
            assert.equal(expected, (handshake(stack, name, version)), name)
          end
          assert.is_false((handshake(stack, nil, version)))
        end)

        it("sends names of CAs where that is said, those of all plugins that meet: " .. version, function()
          local function names(sni)
            return select(2, handshake(stack, sni, version))
          end
          assert.same({}, names("silent.test"))
          assert.same({}, names("open.test"))
          assert.same({ "spec CA" }, names("named.test"))
          assert.same({ "second spec CA", "spec CA" }, names("merged.test"))
        end)
      end

      it("does not require what it asks for", function()
        stack.unauthenticated(stack:get("silent.test"))
        stack.unverified(stack:get("named.test", "mallory"))
        stack.passed_as(stack:get("named.test", "alice"), "alice")
        stack.passed(stack:get("open.test", "alice"))
      end)

      it("protects each route by its own CAs, whatever was sent", function()
        stack.passed_as(stack:get("merged.test", "alice", { path = "/1" }), "alice")
        stack.unverified(stack:get("merged.test", "alice", { path = "/2" }))
        stack.passed_as(stack:get("merged.test", "second-alice", { path = "/2" }), "alice")
        stack.unverified(stack:get("merged.test", "second-alice", { path = "/1" }))
      end)

      it("misdirects a request for a name that needs a certificate, over a handshake that did not ask", function()
        local arrivals = stack:arrivals()
        for _, sni in ipairs { "open.test", "unknown.test" } do
          local response = stack:get("silent.test", "alice", { sni = sni })
          assert.res_status(421, response)
        end
        assert.equal(arrivals, stack:arrivals())
      end)
    end)

    describe(title:format("for everything"), function()
      local stack

      lazy_setup(function()
        stack = stacks.new(strategy, protocol)
        stack:insert_consumer("alice")
        stack:insert_route("any.test")
        stack:insert_plugin("mtls-auth", { ca_certificates = { stack.ca.id }, send_ca_dn = true })
        stack:start()
      end)

      lazy_teardown(function()
        stack:stop()
      end)

      it("asks everybody", function()
        for _, name in ipairs { "any.test", "unknown.test", false } do
          local asked, names = handshake(stack, name or nil)
          assert.is_true(asked)
          assert.same({ "spec CA" }, names)
        end
        stack.passed_as(stack:get("any.test", "alice"), "alice")
        stack.unauthenticated(stack:get("any.test"))
      end)
    end)
  end
end
