local helpers = require "spec.helpers"
local stacks = require "spec.mtls-auth.stack"

local CLAIMS = { ["X-Consumer-Username"] = "alice", ["X-Consumer-ID"] = "forged", ["X-Credential-Identifier"] = "alice" }


for _, strategy in helpers.all_strategies() do
  for _, protocol in stacks.each_protocol() do
    local title = "Plugin: mtls-auth (%s) [#" .. strategy .. ", #" .. protocol .. "]"

    -- What Kong answers on a guarded route while the plugin server is away.
    local status = protocol == "msgpack" and 503 or 500
    local message = protocol == "msgpack" and stacks.TEXTS.unguarded or stacks.TEXTS.fault

    local function insert_routes(stack)
      stack:insert_consumer("alice")
      stack:insert_consumer("anonymous")
      local guard = { ["post-function"] = { access = { stacks.GUARD } } }
      stack:insert_route("open.test")
      stack:insert_protected_route("guarded.test", nil, guard)
      stack:insert_protected_route("anonymous.test", { anonymous = "anonymous" }, guard)
      stack:insert_protected_route("skip.test", { skip_consumer_lookup = true, authenticated_group_by = ngx.null }, guard)
      stack:insert_protected_route("unguarded.test")
    end

    describe(title:format("guard, and a plugin server that is away"), function()
      local stack

      lazy_setup(function()
        stack = stacks.new(strategy, protocol)
        insert_routes(stack)
        stack:start { managed = false }
        stack:start_server()
        -- A worker of Kong that has reached no plugin server for an instance yet fails closed by itself.
        for _, host in ipairs { "guarded.test", "skip.test", "unguarded.test" } do
          stack.passed(stack:get(host, "alice"))
        end
        stack.passed_as(stack:get("anonymous.test"), "anonymous")
      end)

      lazy_teardown(function()
        stack:stop()
      end)

      local function nobody_passes(get)
        for _, host in ipairs { "guarded.test", "anonymous.test", "skip.test" } do
          local arrivals = stack:arrivals()
          stack.refused(get(host), status, message)
          assert.equal(arrivals, stack:arrivals())
        end
      end

      it("stands in the way of nobody who is authenticated", function()
        stack.passed_as(stack:get("guarded.test", "alice"), "alice")
        stack.unauthenticated(stack:get("guarded.test"))
        stack.unverified(stack:get("guarded.test", "mallory"))
        stack.passed_as(stack:get("anonymous.test", "mallory"), "anonymous")
        -- Neither a consumer nor a group, but a credential.
        stack.passed(stack:get("skip.test", "nobody"))
      end)

      it("lets nobody pass while the plugin server is dead", function()
        stack:kill_server()
        nobody_passes(function(host) return stack:get_plain(host) end)
        nobody_passes(function(host) return stack:get_plain(host, CLAIMS) end)
        nobody_passes(function(host) return stack:get(host) end)
        nobody_passes(function(host) return stack:get(host, "alice") end)
        nobody_passes(function(host) return stack:get(host, "mallory") end)
        stack.passed(stack:get("open.test"))
      end)

      it("is what it takes in MsgPack:1, and not in ProtoBuf:1", function()
        stack:kill_server()
        local response = stack:get_plain("unguarded.test", CLAIMS)
        if protocol == "msgpack" then
          -- Kong's own way, and the reason for the guard.
          stack.passed_as(response, "alice")
        else
          stack.refused(response, 500, stacks.TEXTS.fault)
        end
      end)

      it("lets pass again once there is a plugin server", function()
        stack:kill_server()
        stack.refused(stack:get("guarded.test", "alice"), status, message)
        -- Kong drops its instances some time after it has found another server: from here on it may fail closed by itself.
        stack:start_server()
        helpers.pwait_until(function()
          stack.passed_as(stack:get("guarded.test", "alice"), "alice")
        end, stacks.PATIENCE)
        stack.unauthenticated(stack:get("guarded.test"))
      end)
    end)

    describe(title:format("a plugin server that Kong starts"), function()
      local stack

      lazy_setup(function()
        stack = stacks.new(strategy, protocol)
        insert_routes(stack)
        stack:start()
      end)

      lazy_teardown(function()
        stack:stop()
      end)

      it("is started anew when it is killed, and nobody passes meanwhile", function()
        stack.passed_as(stack:get("guarded.test", "alice"), "alice")
        local killed = assert(stack:managed_server_pid())
        local arrivals = stack:arrivals()
        stacks.run("kill -KILL %s", killed)
        helpers.wait_until(function()
          assert.not_equal(200, stack:get_plain("guarded.test", CLAIMS).status)
          return stack:managed_server_pid() ~= killed
        end, stacks.PATIENCE)
        assert.equal(arrivals, stack:arrivals())
        helpers.pwait_until(function()
          stack.passed_as(stack:get("guarded.test", "alice"), "alice")
        end, stacks.PATIENCE)
      end)
    end)

    describe(title:format("a shim that watches the plugin server"), function()
      local stack

      lazy_setup(function()
        stack = stacks.new(strategy, protocol)
        insert_routes(stack)
        stack:start { managed = false, shim = false }
        stack:start_server()
        stack:start_shim { plugin_server = stack.socket }
      end)

      lazy_teardown(function()
        stack:stop()
      end)

      it("refuses what needs a certificate while it is dead, and nothing else", function()
        stack.passed_as(stack:get("unguarded.test", "alice"), "alice")
        stack:kill_server()
        helpers.wait_until(function()
          return stack:get("unguarded.test", "alice").status == 503
        end, stacks.PATIENCE)
        local arrivals = stack:arrivals()
        for _, certificate in ipairs { false, "alice", "mallory" } do
          assert.res_status(503, stack:get("unguarded.test", certificate or nil))
        end
        assert.equal(arrivals, stack:arrivals())
        stack.passed(stack:get("open.test"))
        stack:start_server()
        helpers.pwait_until(function()
          stack.passed_as(stack:get("unguarded.test", "alice"), "alice")
        end, stacks.PATIENCE)
      end)
    end)
  end
end
