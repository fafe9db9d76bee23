local helpers = require "spec.helpers"
local stacks = require "spec.mtls-auth.stack"
local cjson = require "cjson"

-- Headers that tell an upstream who it is.
local IDENTITY = {
  "x-consumer-id", "x-consumer-username", "x-consumer-custom-id", "x-credential-identifier", "x-anonymous-consumer",
  "x-client-cert-dn", "x-client-cert-san",
}
local HANDOFF = { "client-cert", "client-cert-chain", "client-cert-proof" }
local DETAILS = {
  "x-client-cert", "x-client-cert-serial", "x-client-cert-issuer-dn", "x-client-cert-subject-dn",
  "x-client-cert-fingerprint",
}


for _, strategy in helpers.all_strategies() do
  for _, protocol in stacks.each_protocol() do
    describe("Plugin: mtls-auth (access) [#" .. strategy .. ", #" .. protocol .. "]", function()
      local stack, alice, bob, anonymous

      lazy_setup(function()
        stack = stacks.new(strategy, protocol)
        alice = stack:insert_consumer("alice")
        bob = stack:insert_consumer("bob", "custom-bob")
        anonymous = stack:insert_consumer("anonymous", "custom-anonymous")
        local intermediate = stack:insert_ca("intermediate")

        stack:insert_route("open.test")
        stack:insert_protected_route("protected.test")
        stack:insert_protected_route("pem.test", { ca_certificates = { stack:pem("ca") } })
        stack:insert_protected_route("second.test", { ca_certificates = { stack:insert_ca("second-ca").id } })
        stack:insert_protected_route("intermediate.test", { ca_certificates = { intermediate.id } })
        stack:insert_protected_route("partial.test", {
          ca_certificates = { intermediate.id }, allow_partial_chain = true,
        })
        stack:insert_protected_route("server-usage.test", { allow_server_auth_usage = true })
        stack:insert_protected_route("anonymous.test", { anonymous = anonymous.id })
        stack:insert_protected_route("anonymous-by-name.test", { anonymous = "anonymous" })
        stack:insert_protected_route("default.test", { default_consumer = bob.id })
        stack:insert_protected_route("default-by-name.test", { default_consumer = "bob" })
        stack:insert_protected_route("skip.test", { skip_consumer_lookup = true })
        stack:insert_protected_route("details.test", { inject_client_cert_details = true })
        stack:insert_protected_route("renamed.test", {
          inject_client_cert_details = true,
          client_cert_header_name = ngx.null,
          client_serial_header_name = "X-Serial",
          client_cert_issuer_dn_header_name = ngx.null,
          client_cert_subject_dn_header_name = ngx.null,
          client_cert_fingerprint_header_name = ngx.null,
        })
        -- Our own faults: each configuration passes the schema.
        stack:insert_protected_route("no-ca.test", {
          ca_certificates = { "00000000-0000-4000-8000-000000000000" }, anonymous = anonymous.id,
        })
        stack:insert_protected_route("no-anonymous.test", { anonymous = "00000000-0000-4000-8000-000000000001" })
        stack:insert_protected_route("no-default.test", {
          default_consumer = "not-there", anonymous = anonymous.id,
        })
        stack:insert_protected_route("wrong.test", {
          san_dirname_matcher = { "no such attribute" }, anonymous = anonymous.id,
        })
        stack:start()
      end)

      lazy_teardown(function()
        stack:stop()
      end)

      local function absent(headers, names)
        for _, name in ipairs(names) do
          assert.is_nil(headers[name], name)
          assert.is_nil(headers[name:gsub("-", "_")], name)
        end
      end

      -- Kong's error log says why, and the answer does not.
      local function unverified(reason, response)
        local body = stack.unverified(response)
        assert.logfile().has.line("refused: " .. reason, true, 10)
        return body
      end

      before_each(function()
        helpers.clean_logfile()
      end)

      describe("without a certificate", function()
        it("is refused", function()
          stack.unauthenticated(stack:get("protected.test"))
          assert.logfile().has.line("[mtls-auth] refused: no_certificate", true, 10)
        end)

        it("is refused on Kong's plain port", function()
          stack.unauthenticated(stack:get_plain("protected.test"))
        end)

        it("passes where the plugin is not", function()
          absent(stack.passed(stack:get("open.test")), IDENTITY)
        end)

        it("says so in the form of the protocol", function()
          local response = stack:get("protected.test", nil, { headers = { Accept = "text/html" } })
          local body = assert.res_status(401, response)
          if protocol == "msgpack" then
            assert.equal("text/html; charset=utf-8", response.headers["Content-Type"])
            assert.matches("<p>" .. stacks.TEXTS.none, body, 1, true)
          else
            assert.equal("application/json; charset=utf-8", response.headers["Content-Type"])
            assert.same({ message = stacks.TEXTS.none }, cjson.decode(body))
          end
        end)

        it("says nothing but the text, and in MsgPack:1 the id of the request", function()
          local body = stack.unauthenticated(stack:get("protected.test"))
          assert.equal(protocol == "msgpack", body.request_id ~= nil)
          body.request_id = nil
          assert.same({ message = stacks.TEXTS.none }, body)
        end)
      end)

      describe("with a certificate", function()
        it("that is trusted and has a consumer passes as that consumer", function()
          local headers = stack.passed(stack:get("protected.test", "alice"))
          assert.equal(alice.id, headers["x-consumer-id"])
          assert.equal("alice", headers["x-consumer-username"])
          assert.equal("alice", headers["x-credential-identifier"])
          absent(headers, { "x-consumer-custom-id", "x-anonymous-consumer", "x-client-cert-dn", "x-client-cert-san" })
          absent(headers, HANDOFF)
          absent(headers, DETAILS)
        end)

        it("passes by a CA that stands in the configuration", function()
          stack.passed_as(stack:get("pem.test", "alice"), "alice")
          unverified("untrusted", stack:get("pem.test", "second-alice"))
        end)

        it("is verified against the CAs of its route", function()
          stack.passed_as(stack:get("second.test", "second-alice"), "alice")
          unverified("untrusted", stack:get("second.test", "alice"))
          unverified("untrusted", stack:get("protected.test", "second-alice"))
        end)

        it("passes where it says nothing of what it is for", function()
          stack.passed_as(stack:get("protected.test", "any-purpose"), "alice")
        end)

        it("passes as one for servers where that is allowed", function()
          stack.passed_as(stack:get("server-usage.test", "server-only"), "alice")
          stack.passed_as(stack:get("server-usage.test", "alice"), "alice")
          unverified("untrusted", stack:get("server-usage.test", "mallory"))
          unverified("expired", stack:get("server-usage.test", "expired"))
        end)

        it("passes with its chain, and not without", function()
          stack.passed_as(stack:get("protected.test", "chained"), "alice")
          unverified("untrusted", stack:get("protected.test", "alone"))
        end)

        it("has an intermediate for its anchor where partial chains are allowed", function()
          stack.passed_as(stack:get("partial.test", "alone"), "alice")
          unverified("untrusted", stack:get("intermediate.test", "alone"))
          unverified("untrusted", stack:get("partial.test", "alice"))
        end)

        for name, reason in pairs {
          mallory = "untrusted", expired = "expired", future = "not_yet_valid", ["server-only"] = "wrong_purpose",
          nobody = "no_consumer", ["two-names"] = "no_consumer",
        } do
          it("is refused: " .. name, function()
            local body = unverified(reason, stack:get("protected.test", name))
            body.request_id = nil
            assert.same({ message = stacks.TEXTS.unverified }, body)
          end)
        end

        it("has its subject in the log", function()
          unverified('no_consumer, subject: "CN=nobody,O=Spec"', stack:get("protected.test", "nobody"))
        end)
      end)

      describe("whatever a client says of itself", function()
        local forged = stacks.FORGED

        it("is not believed through the shim", function()
          stack.unauthenticated(stack:get("protected.test", nil, { headers = forged }))
          stack.unverified(stack:get("protected.test", "mallory", { headers = forged }))
        end)

        it("does not arrive beside what is true", function()
          local headers = stack.passed_as(stack:get("protected.test", "alice", { headers = forged }), "alice")
          assert.equal(alice.id, headers["x-consumer-id"])
          assert.equal("alice", headers["x-credential-identifier"])
          stack.without_forgeries(headers)
          absent(headers, { "x-consumer-custom-id", "x-anonymous-consumer", "x-client-cert-dn", "x-client-cert-san" })
          absent(headers, HANDOFF)
        end)

        it("does not arrive from somebody anonymous", function()
          local headers = stack.passed_as(stack:get("anonymous.test", nil, { headers = forged }), "anonymous")
          assert.equal("true", headers["x-anonymous-consumer"])
          absent(headers, { "x-credential-identifier", "x-client-cert-dn", "x-client-cert-san" })
          absent(headers, HANDOFF)
        end)

        it("is no certificate on Kong's plain port", function()
          local leaf = ngx.encode_base64(require("ngx.ssl").cert_pem_to_der(stack:pem("alice")))
          unverified("proof_missing", stack:get_plain("protected.test", { ["Client-Cert"] = ":" .. leaf .. ":" }))
          unverified("proof_missing", stack:get_plain("protected.test", { ["client_cert"] = ":" .. leaf .. ":" }))
          unverified("proof_invalid", stack:get_plain("protected.test", {
            ["Client-Cert"] = ":" .. leaf .. ":", ["Client-Cert-Proof"] = "forged",
          }))
        end)

        it("is refused where it is more than Kong shows", function()
          local many = {}
          for i = 1, 1100 do
            many["X-Filler-" .. i] = "1"
          end
          assert.is_true(stack:get_plain("protected.test", many).status >= 400)
          assert.is_true(stack:get_plain("anonymous.test", many).status >= 400)
        end)
      end)

      describe("anonymous", function()
        for _, host in ipairs { "anonymous.test", "anonymous-by-name.test" } do
          it("is everybody who is not authenticated: " .. host, function()
            for _, certificate in ipairs { false, "mallory", "expired", "nobody" } do
              local headers = stack.passed(stack:get(host, certificate or nil))
              assert.equal(anonymous.id, headers["x-consumer-id"])
              assert.equal("anonymous", headers["x-consumer-username"])
              assert.equal("custom-anonymous", headers["x-consumer-custom-id"])
              assert.equal("true", headers["x-anonymous-consumer"])
              absent(headers, { "x-credential-identifier", "x-client-cert-dn", "x-client-cert-san" })
              absent(headers, HANDOFF)
            end
            assert.logfile().has.line("passed as anonymous: untrusted", true, 10)
          end)
        end

        it("is nobody who is authenticated", function()
          local headers = stack.passed_as(stack:get("anonymous.test", "alice"), "alice")
          absent(headers, { "x-anonymous-consumer", "x-consumer-custom-id" })
        end)
      end)

      describe("default_consumer", function()
        for _, host in ipairs { "default.test", "default-by-name.test" } do
          it("is whoever is trusted and nobody else: " .. host, function()
            local headers = stack.passed(stack:get(host, "nobody"))
            assert.equal(bob.id, headers["x-consumer-id"])
            assert.equal("bob", headers["x-consumer-username"])
            assert.equal("custom-bob", headers["x-consumer-custom-id"])
            assert.equal("nobody", headers["x-credential-identifier"])
            stack.passed_as(stack:get(host, "alice"), "alice")
            unverified("untrusted", stack:get(host, "mallory"))
            stack.unauthenticated(stack:get(host))
          end)
        end
      end)

      describe("skip_consumer_lookup", function()
        it("lets pass whoever is trusted, as no consumer", function()
          local headers = stack.passed(stack:get("skip.test", "nobody"))
          assert.equal("CN=nobody,O=Spec", headers["x-client-cert-dn"])
          absent(headers, { "x-client-cert-san", "x-consumer-id", "x-consumer-username", "x-anonymous-consumer" })
          headers = stack.passed(stack:get("skip.test", "dns"))
          assert.equal("CN=alice", headers["x-client-cert-dn"])
          assert.equal("DNS:bob.example", headers["x-client-cert-san"])
          absent(headers, { "x-consumer-id", "x-consumer-username", "x-credential-identifier" })
        end)

        it("refuses everybody else", function()
          unverified("untrusted", stack:get("skip.test", "mallory"))
          stack.unauthenticated(stack:get("skip.test"))
        end)
      end)

      describe("inject_client_cert_details", function()
        it("tells the upstream about the certificate", function()
          local function openssl(arguments)
            return stacks.run("openssl x509 -in %s -noout %s", stack:path("alice.crt"), arguments)
          end

          local headers = stack.passed(stack:get("details.test", "alice"))
          assert.equal(stack:pem("alice"), ngx.unescape_uri(headers["x-client-cert"]))
          assert.equal(openssl("-serial"):match("serial=(%x+)"), headers["x-client-cert-serial"])
          assert.equal("CN=spec CA,O=Spec", headers["x-client-cert-issuer-dn"])
          assert.equal("CN=alice", headers["x-client-cert-subject-dn"])
          local fingerprint = openssl("-fingerprint -sha1"):match("=(.+)"):gsub(":", ""):lower()
          assert.equal(fingerprint, headers["x-client-cert-fingerprint"])
        end)

        it("is told in other headers, or left out", function()
          local headers = stack.passed(stack:get("renamed.test", "alice", { headers = { ["x_serial"] = "forged" } }))
          assert.matches("^%x+$", headers["x-serial"])
          assert.is_nil(headers["x_serial"])
          absent(headers, DETAILS)
        end)
      end)

      describe("our own fault is never a pass, not even as anonymous", function()
        for host, reason in pairs {
          ["no-ca.test"] = "there is no", ["no-default.test"] = "consumer_unavailable",
          ["no-anonymous.test"] = "consumer_unavailable", ["wrong.test"] = "no such attribute",
        } do
          it(host, function()
            local arrivals = stack:arrivals()
            local response = stack:get(host, host == "no-anonymous.test" and "mallory" or "nobody")
            stack.refused(response, 500, stacks.TEXTS.fault)
            assert.equal(arrivals, stack:arrivals())
            assert.logfile().has.line(reason, true, 10)
          end)
        end
      end)
    end)
  end
end
