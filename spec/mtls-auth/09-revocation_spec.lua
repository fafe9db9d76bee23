local helpers = require "spec.helpers"
local stacks = require "spec.mtls-auth.stack"
local file = require "pl.file"


for _, strategy in helpers.all_strategies() do
  for _, protocol in stacks.each_protocol() do
    local title = "Plugin: mtls-auth (revocation, %s) [#" .. strategy .. ", #" .. protocol .. "]"

    local function start(stack, options)
      stack:insert_consumer("alice")
      stack:insert_consumer("anonymous")
      for _, mode in ipairs { "SKIP", "IGNORE_CA_ERROR", "STRICT" } do
        stack:insert_protected_route(mode:lower():gsub("_", "-") .. ".test", { revocation_check_mode = mode })
      end
      stack:insert_protected_route("default.test")
      stack:insert_protected_route("anonymous.test", { anonymous = "anonymous" })
      stack:start(options)
      -- `openssl ocsp` reads what `openssl ca` has written, and signs with the CA's own key.
      stack:spawn(
        "ocsp", "exec openssl ocsp -index %s -CA %s -rsigner %s -rkey %s -port %d -ndays 1",
        stack:path("ca.index"), stack:path("ca.crt"), stack:path("ca.crt"), stack:path("ca.key"), stack.ocsp_port
      )
      -- It serves one connection after the other: one that only tries whether it is there would keep others waiting.
      helpers.wait_until(function()
        return (file.read(stack:path("ocsp.log")) or ""):find("ACCEPT", 1, true)
      end, stacks.PATIENCE)
    end

    describe(title:format("by responders on loopback"), function()
      local stack

      lazy_setup(function()
        stack = stacks.new(strategy, protocol)
        start(stack, { server = "--allow-private-revocation-urls" })
      end)

      lazy_teardown(function()
        stack:stop()
      end)

      before_each(function()
        helpers.clean_logfile()
      end)

      for _, by in ipairs { "ocsp", "crl" } do
        it("is believed: " .. by, function()
          for _, host in ipairs { "ignore-ca-error.test", "strict.test", "default.test" } do
            stack.passed_as(stack:get(host, by .. "-good"), "alice")
            stack.unverified(stack:get(host, by .. "-revoked"))
          end
          assert.logfile().has.line("refused: revoked", true, 10)
        end)

        it("is not asked for with SKIP: " .. by, function()
          stack.passed_as(stack:get("skip.test", by .. "-revoked"), "alice")
        end)

        it("is as any other refusal with anonymous: " .. by, function()
          local headers = stack.passed_as(stack:get("anonymous.test", by .. "-revoked"), "anonymous")
          assert.equal("true", headers["x-anonymous-consumer"])
        end)
      end

      it("refuses in STRICT only who cannot be asked about", function()
        stack.passed_as(stack:get("default.test", "ocsp-silent"), "alice")
        stack.passed_as(stack:get("ignore-ca-error.test", "ocsp-silent"), "alice")
        assert.logfile().has.line("let pass: revocation_unknown", true, 10)
        stack.unverified(stack:get("strict.test", "ocsp-silent"))
        assert.logfile().has.line("refused: revocation_unknown", true, 10)
      end)

      it("refuses in STRICT only who names nobody to ask", function()
        stack.passed_as(stack:get("ignore-ca-error.test", "alice"), "alice")
        stack.unverified(stack:get("strict.test", "alice"))
      end)
    end)

    describe(title:format("where URLs must not lead to loopback"), function()
      local stack

      lazy_setup(function()
        stack = stacks.new(strategy, protocol)
        start(stack)
      end)

      lazy_teardown(function()
        stack:stop()
      end)

      for _, by in ipairs { "ocsp", "crl" } do
        it("is not known: " .. by, function()
          stack.passed_as(stack:get("ignore-ca-error.test", by .. "-revoked"), "alice")
          stack.unverified(stack:get("strict.test", by .. "-good"))
          assert.logfile().has.line("url_refused", true, 10)
        end)
      end
    end)

    describe(title:format("by a file of CRLs"), function()
      local stack

      lazy_setup(function()
        stack = stacks.new(strategy, protocol)
        stack:insert_consumer("alice")
        stack:insert_protected_route("strict.test", { revocation_check_mode = "STRICT" })
        stack:start { server = "--crl-path " .. stack:path("ca.crl") }
      end)

      lazy_teardown(function()
        stack:stop()
      end)

      it("is believed of all certificates of their issuer", function()
        stack.passed_as(stack:get("strict.test", "alice"), "alice")
        stack.unverified(stack:get("strict.test", "ocsp-revoked"))
        stack.unverified(stack:get("strict.test", "crl-revoked"))
        assert.logfile().has.line("refused: revoked", true, 10)
      end)
    end)
  end
end
