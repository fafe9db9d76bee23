local helpers = require "spec.helpers"
local stacks = require "spec.mtls-auth.stack"

local FORBIDDEN = "You cannot consume this service"


for _, strategy in helpers.all_strategies() do
  for _, protocol in stacks.each_protocol() do
    describe("Plugin: mtls-auth (groups, with acl) [#" .. strategy .. ", #" .. protocol .. "]", function()
      local stack

      lazy_setup(function()
        stack = stacks.new(strategy, protocol)
        local alice = stack:insert_consumer("alice")
        stack:insert_consumer("nobody")
        stack.bp.acls:insert { consumer = { id = alice.id }, group = "staff" }

        local function skip_route(host, group_by, acl)
          stack:insert_protected_route(host, { skip_consumer_lookup = true, authenticated_group_by = group_by }, {
            acl = acl,
          })
        end
        skip_route("cn.test", "CN", { allow = { "alice" } })
        skip_route("dn.test", "DN", { allow = { "CN=nobody,O=Spec" } })
        skip_route("none.test", ngx.null, { allow = { "alice", "CN=alice" } })
        skip_route("deny.test", "CN", { deny = { "alice" } })
        stack:insert_protected_route("consumer.test", nil, { acl = { allow = { "staff" } } })
        stack:start()
      end)

      lazy_teardown(function()
        stack:stop()
      end)

      it("are the CN", function()
        stack.passed(stack:get("cn.test", "alice"))
        stack.refused(stack:get("cn.test", "nobody"), 403, FORBIDDEN)
        -- Several CNs are none.
        assert.is_true(stack:get("cn.test", "two-names").status >= 400)
      end)

      it("are the DN", function()
        stack.passed(stack:get("dn.test", "nobody"))
        stack.refused(stack:get("dn.test", "alice"), 403, FORBIDDEN)
      end)

      it("are none where that is said", function()
        assert.is_true(stack:get("none.test", "alice").status >= 400)
      end)

      it("may be denied", function()
        stack.refused(stack:get("deny.test", "alice"), 403, FORBIDDEN)
        stack.passed(stack:get("deny.test", "nobody"))
      end)

      it("do not help who is not authenticated", function()
        for _, host in ipairs { "cn.test", "dn.test", "none.test", "deny.test" } do
          stack.unauthenticated(stack:get(host))
          stack.unverified(stack:get(host, "mallory"))
        end
      end)

      it("are those of the consumer otherwise", function()
        stack.passed_as(stack:get("consumer.test", "alice"), "alice")
        stack.refused(stack:get("consumer.test", "nobody"), 403, FORBIDDEN)
      end)
    end)
  end
end
