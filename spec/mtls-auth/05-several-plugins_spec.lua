local helpers = require "spec.helpers"
local stacks = require "spec.mtls-auth.stack"
local cjson = require "cjson"

local KEY = { headers = { apikey = "key-of-bob" } }
local WRONG_KEY = { headers = { apikey = "no-key" } }

-- Authenticates before mtls-auth does, and tells the upstream so, as an authentication plugin of a higher priority.
local EARLIER = [[
if kong.request.get_header("X-Earlier") then
  kong.client.authenticate({ id = "%s", username = "earlier" }, { id = "earlier-credential" })
  kong.service.request.set_header("X-Consumer-Username", "earlier")
end
]]


for _, strategy in helpers.all_strategies() do
  for _, protocol in stacks.each_protocol() do
    describe("Plugin: mtls-auth (with other plugins) [#" .. strategy .. ", #" .. protocol .. "]", function()
      local stack

      lazy_setup(function()
        stack = stacks.new(strategy, protocol)
        stack:insert_consumer("alice")
        local bob = stack:insert_consumer("bob")
        local anonymous = stack:insert_consumer("anonymous")
        local earlier = stack:insert_consumer("earlier")
        stack.bp.keyauth_credentials:insert { key = "key-of-bob", consumer = { id = bob.id } }
        stack:insert_plugin("request-termination", { status_code = 403, message = "nobody" }, {
          consumer = { id = anonymous.id },
        })

        stack:insert_protected_route("and.test", nil, { ["key-auth"] = {} })
        stack:insert_protected_route("or.test", { anonymous = anonymous.id }, {
          ["key-auth"] = { anonymous = anonymous.id },
        })
        stack:insert_protected_route("certificate.test")
        stack:insert_route("key.test", { ["key-auth"] = {} })

        local first = { ["pre-function"] = { access = { EARLIER:format(earlier.id) } } }
        stack:insert_protected_route("earlier-or.test", { anonymous = anonymous.id }, first)
        stack:insert_protected_route("earlier-and.test", nil, first)
        stack:start()
      end)

      lazy_teardown(function()
        stack:stop()
      end)

      describe("both on a route", function()
        it("both have to be satisfied", function()
          stack.unauthenticated(stack:get("and.test"))
          stack.unauthenticated(stack:get("and.test", nil, KEY))
          stack.unverified(stack:get("and.test", "mallory", KEY))
          assert.res_status(401, stack:get("and.test", "alice"))
          assert.res_status(401, stack:get("and.test", "alice", WRONG_KEY))
          -- The later one says who it is.
          local headers = stack.passed_as(stack:get("and.test", "alice", KEY), "bob")
          assert.is_nil(headers["x-anonymous-consumer"])
        end)

        it("one is enough where both have the same anonymous consumer", function()
          local headers = stack.passed_as(stack:get("or.test", "alice"), "alice")
          assert.is_nil(headers["x-anonymous-consumer"])
          headers = stack.passed_as(stack:get("or.test", nil, KEY), "bob")
          assert.is_nil(headers["x-anonymous-consumer"])
          stack.passed_as(stack:get("or.test", "mallory", KEY), "bob")
          -- The earlier one says who it is.
          stack.passed_as(stack:get("or.test", "alice", KEY), "alice")
        end)

        it("none is not enough", function()
          for _, certificate in ipairs { false, "mallory" } do
            for _, options in ipairs { {}, WRONG_KEY } do
              local response = stack:get("or.test", certificate or nil, options)
              assert.equal("nobody", cjson.decode(assert.res_status(403, response)).message)
            end
          end
        end)
      end)

      describe("each on a route of its own", function()
        it("each counts there only", function()
          stack.passed_as(stack:get("certificate.test", "alice"), "alice")
          stack.unauthenticated(stack:get("certificate.test", nil, KEY))
          stack.passed_as(stack:get("key.test", nil, KEY), "bob")
          assert.res_status(401, stack:get("key.test", "alice"))
        end)
      end)

      describe("an earlier one", function()
        local earlier = { headers = { ["X-Earlier"] = "1" } }

        it("is left alone where there is an anonymous consumer", function()
          stack.passed_as(stack:get("earlier-or.test", "alice", earlier), "earlier")
          stack.passed_as(stack:get("earlier-or.test", "mallory", earlier), "earlier")
          local forged = { headers = { ["X-Earlier"] = "1", ["x_consumer_username"] = "forged" } }
          assert.is_nil(stack.passed_as(stack:get("earlier-or.test", nil, forged), "earlier")["x_consumer_username"])
          stack.passed_as(stack:get("earlier-or.test", "alice"), "alice")
          assert.res_status(403, stack:get("earlier-or.test"))
        end)

        it("is not enough where there is none", function()
          stack.unauthenticated(stack:get("earlier-and.test", nil, earlier))
          stack.unverified(stack:get("earlier-and.test", "mallory", earlier))
          stack.passed_as(stack:get("earlier-and.test", "alice", earlier), "alice")
        end)
      end)
    end)
  end
end
