local helpers = require "spec.helpers"
local stacks = require "spec.mtls-auth.stack"

-- What plugins after this one see, for the upstream to say.
local SEEN = [[
local consumer = kong.client.get_consumer()
local credential = kong.client.get_credential()
kong.service.request.set_header("X-Seen-Custom-ID", "<" .. tostring(consumer.custom_id) .. ">")
kong.service.request.set_header("X-Seen-Credential", tostring(credential.id))
kong.service.request.set_header("X-Seen-Credential-Consumer",
  tostring(credential.consumer_id or credential.consumer and credential.consumer.id))
]]


for _, strategy in helpers.all_strategies() do
  for _, protocol in stacks.each_protocol() do
    describe("Plugin: mtls-auth (consumers and mappings) [#" .. strategy .. ", #" .. protocol .. "]", function()
      local stack, alice

      lazy_setup(function()
        stack = stacks.new(strategy, protocol)
        alice = stack:insert_consumer("alice")
        -- By custom_id only; and one whose custom_id is another one's username.
        stack:insert_consumer("employee", "emp-7")
        stack:insert_consumer("impostor", "alice")
        for name, username in pairs {
          ["bob.example"] = "bob-dns", ["bob@example.com"] = "bob-email", ["spiffe://example.com/bob"] = "bob-uri",
          ["192.0.2.7"] = "bob-ip", ["org-bob"] = "bob-org", ["unit-bob"] = "bob-unit", ["cn-bob"] = "bob-cn",
        } do
          stack:insert_consumer(username, name)
        end
        local mapped = stack:insert_consumer("mapped")
        stack:insert_consumer("of-first-ca")
        stack:insert_consumer("of-second-ca")
        local second_ca = stack:insert_ca("second-ca")
        local both = { stack.ca.id, second_ca.id }

        stack:insert_protected_route("both.test")
        stack:insert_protected_route("username.test", { consumer_by = { "username" } })
        stack:insert_protected_route("custom-id.test", { consumer_by = { "custom_id" } })
        stack:insert_protected_route("seen.test", nil, { ["post-function"] = { access = { SEEN } } })

        stack:insert_protected_route("mapped.test", {
          consumer_by = {}, credentials = { { subject_name = "mapped.example", consumer = "mapped", id = "mapping-1" } },
        })
        stack:insert_protected_route("mapped-by-id.test", {
          consumer_by = {}, credentials = { { subject_name = "mapped.example", consumer = mapped.id } },
        })
        stack:insert_protected_route("mapped-first.test", {
          credentials = { { subject_name = "alice", consumer = "mapped" } },
        })
        stack:insert_protected_route("mapped-by-ca.test", {
          ca_certificates = both,
          consumer_by = {},
          credentials = {
            { subject_name = "mapped.example", consumer = "mapped" },
            { subject_name = "mapped.example", consumer = "of-second-ca", ca_certificate = second_ca.id },
            { subject_name = "alice", consumer = "of-first-ca", ca_certificate = stack.ca.id },
          },
        })
        stack:insert_protected_route("mapped-to-nobody.test", {
          credentials = { { subject_name = "alice", consumer = "not-there" } }, anonymous = alice.id,
        })

        stack:insert_protected_route("unit.test", { san_dirname_matcher = { "OU" } })
        stack:insert_protected_route("common-name.test", { san_dirname_matcher = { "2.5.4.3" } })
        stack:insert_protected_route("organization.test", { san_dirname_matcher = { "organizationName" } })
        stack:insert_protected_route("locality.test", { san_dirname_matcher = { "L" } })
        stack:start()
      end)

      lazy_teardown(function()
        stack:stop()
      end)

      it("are found by username, and by custom_id", function()
        stack.passed_as(stack:get("both.test", "alice"), "alice")
        local headers = stack.passed_as(stack:get("both.test", "numbered"), "employee")
        assert.equal("emp-7", headers["x-consumer-custom-id"])
        assert.equal("emp-7", headers["x-credential-identifier"])
      end)

      it("are found by what is configured only", function()
        stack.passed_as(stack:get("username.test", "alice"), "alice")
        stack.unverified(stack:get("username.test", "numbered"))
        stack.passed_as(stack:get("custom-id.test", "alice"), "impostor")
        stack.passed_as(stack:get("custom-id.test", "numbered"), "employee")
      end)

      for _, kind in ipairs { "dns", "email", "uri", "ip" } do
        it("are found by a name of this kind, and not by the CN beside it: " .. kind, function()
          stack.passed_as(stack:get("both.test", kind), "bob-" .. kind)
          stack.unverified(stack:get("username.test", kind))
        end)
      end

      it("are found by the first name that somebody has", function()
        local headers = stack.passed_as(stack:get("both.test", "several"), "bob-email")
        assert.equal("bob@example.com", headers["x-credential-identifier"])
      end)

      it("are found by the attributes of a directoryName that the matcher lists, or all", function()
        stack.passed_as(stack:get("both.test", "directory"), "bob-org")
        stack.passed_as(stack:get("organization.test", "directory"), "bob-org")
        stack.passed_as(stack:get("unit.test", "directory"), "bob-unit")
        stack.passed_as(stack:get("common-name.test", "directory"), "bob-cn")
        stack.unverified(stack:get("locality.test", "directory"))
        -- It is about directoryNames only.
        stack.passed_as(stack:get("locality.test", "alice"), "alice")
      end)

      it("are found by a mapping, to an id or a username", function()
        local headers = stack.passed_as(stack:get("mapped.test", "mapped"), "mapped")
        assert.equal("mapping-1", headers["x-credential-identifier"])
        stack.passed_as(stack:get("mapped-by-id.test", "mapped"), "mapped")
        -- There is a consumer of that name, and no mapping.
        stack.unverified(stack:get("mapped.test", "alice"))
      end)

      it("are found by a mapping before any name", function()
        stack.passed_as(stack:get("mapped-first.test", "alice"), "mapped")
        stack.passed_as(stack:get("mapped-first.test", "numbered"), "employee")
      end)

      it("are found by a mapping with the CA of the certificate before one without", function()
        stack.passed_as(stack:get("mapped-by-ca.test", "second-mapped"), "of-second-ca")
        stack.passed_as(stack:get("mapped-by-ca.test", "mapped"), "mapped")
        stack.passed_as(stack:get("mapped-by-ca.test", "alice"), "of-first-ca")
        stack.unverified(stack:get("mapped-by-ca.test", "second-alice"))
      end)

      it("are a fault where a mapping names one that is not there", function()
        stack.refused(stack:get("mapped-to-nobody.test", "alice"), 500, stacks.TEXTS.fault)
      end)

      it("are seen by plugins after this one", function()
        local headers = stack.passed_as(stack:get("seen.test", "alice"), "alice")
        assert.equal("alice", headers["x-seen-credential"])
        assert.equal(alice.id, headers["x-seen-credential-consumer"])
        assert.equal(protocol == "msgpack" and "<nil>" or "<>", headers["x-seen-custom-id"])
        headers = stack.passed_as(stack:get("seen.test", "numbered"), "employee")
        assert.equal("<emp-7>", headers["x-seen-custom-id"])
      end)
    end)
  end
end
