local helpers = require "spec.helpers"
local stacks = require "spec.mtls-auth.stack"
local ngx_ssl = require "ngx.ssl"

local URL = { certificate_source = "header", certificate_header_name = "X-Cert", certificate_header_format = "url_encoded" }
local BASE64 = {
  certificate_source = "header", certificate_header_name = "X-Cert", certificate_header_format = "base64_encoded",
}


for _, strategy in helpers.all_strategies() do
  for _, protocol in stacks.each_protocol() do
    local title = "Plugin: mtls-auth (certificate_source %s) [#" .. strategy .. ", #" .. protocol .. "]"

    describe(title:format("header"), function()
      local stack, url_encoded, base64_encoded

      lazy_setup(function()
        stack = stacks.new(strategy, protocol)
        stack:insert_consumer("alice")
        stack:insert_consumer("anonymous")
        stack:insert_protected_route("url.test", URL)
        stack:insert_protected_route("base64.test", BASE64)
        stack:insert_protected_route("anonymous.test", kong.table.merge(URL, { anonymous = "anonymous" }))
        stack:insert_protected_route("shim.test")
        stack:start { shim = false }

        url_encoded = function(name)
          return ngx.escape_uri(stack:pem(name))
        end
        base64_encoded = function(name)
          return ngx.encode_base64(ngx_ssl.cert_pem_to_der(stack:pem(name)))
        end
      end)

      lazy_teardown(function()
        stack:stop()
      end)

      it("takes what a front writes in the format of the configuration", function()
        local headers = stack.passed_as(stack:get_plain("url.test", { ["X-Cert"] = url_encoded("alice") }), "alice")
        assert.is_nil(headers["x-cert"])
        headers = stack.passed_as(stack:get_plain("base64.test", { ["X-Cert"] = base64_encoded("alice") }), "alice")
        assert.is_nil(headers["x-cert"])
      end)

      it("takes a chain", function()
        stack.passed_as(stack:get_plain("url.test", { ["X-Cert"] = url_encoded("chained") }), "alice")
        stack.unverified(stack:get_plain("url.test", { ["X-Cert"] = url_encoded("alone") }))
        local chain = base64_encoded("alone") .. "," .. base64_encoded("intermediate")
        stack.passed_as(stack:get_plain("base64.test", { ["X-Cert"] = chain }), "alice")
      end)

      it("verifies it as any other", function()
        for _, name in ipairs { "mallory", "expired", "server-only", "nobody" } do
          stack.unverified(stack:get_plain("url.test", { ["X-Cert"] = url_encoded(name) }))
          stack.unverified(stack:get_plain("base64.test", { ["X-Cert"] = base64_encoded(name) }))
        end
      end)

      it("refuses what is in another format, twice there, or in another header", function()
        stack.unverified(stack:get_plain("url.test", { ["X-Cert"] = base64_encoded("alice") }))
        stack.unverified(stack:get_plain("base64.test", { ["X-Cert"] = url_encoded("alice") }))
        local alice = url_encoded("alice")
        stack.unverified(stack:get_plain("url.test", { ["X-Cert"] = { alice, alice } }))
        stack.unverified(stack:get_plain("url.test", { ["X-Cert"] = alice, ["x_cert"] = alice }))
        stack.unauthenticated(stack:get_plain("url.test", { ["X-Other"] = alice }))
        stack.unverified(stack:get_plain("shim.test", { ["Client-Cert"] = ":" .. base64_encoded("alice") .. ":" }))
      end)

      it("has none where the front says so", function()
        stack.unauthenticated(stack:get_plain("url.test"))
        stack.unauthenticated(stack:get_plain("url.test", { ["X-Cert"] = "" }))
      end)

      -- No shim has removed any of it before.
      it("lets nothing arrive that a client says of itself", function()
        local headers = kong.table.merge(stacks.FORGED, { ["X-Cert"] = url_encoded("alice") })
        stack.without_forgeries(stack.passed_as(stack:get_plain("url.test", headers), "alice"))
        headers = kong.table.merge(stacks.FORGED, { ["X-Cert"] = "forged", ["x_cert"] = "forged" })
        stack.without_forgeries(stack.passed_as(stack:get_plain("anonymous.test", headers), "anonymous"))
      end)
    end)

    describe(title:format("header, from whom Kong does not trust"), function()
      local stack

      lazy_setup(function()
        stack = stacks.new(strategy, protocol)
        stack:insert_consumer("alice")
        stack:insert_protected_route("secure.test", URL)
        stack:insert_protected_route("insecure.test", kong.table.merge(URL, { secure_source = false }))
        stack:start { shim = false, env = { trusted_ips = "192.0.2.0/24" } }
      end)

      lazy_teardown(function()
        stack:stop()
      end)

      it("counts only where that is not asked for", function()
        local header = { ["X-Cert"] = ngx.escape_uri(stack:pem("alice")) }
        stack.unverified(stack:get_plain("secure.test", header))
        assert.logfile().has.line("refused: untrusted_source", true, 10)
        stack.passed_as(stack:get_plain("insecure.test", header), "alice")
      end)
    end)

    describe(title:format("tls, where Kong asks every client"), function()
      local stack

      lazy_setup(function()
        stack = stacks.new(strategy, protocol)
        stack:insert_consumer("alice")
        local both = { stack.ca.id, stack:insert_ca("intermediate").id }
        stack:insert_protected_route("tls.test", { certificate_source = "tls" })
        stack:insert_protected_route("whole.test", { certificate_source = "tls", ca_certificates = both })
        stack:start { shim = false, env = { nginx_proxy_ssl_verify_client = "optional_no_ca" } }
      end)

      lazy_teardown(function()
        stack:stop()
      end)

      it("takes it from Kong's own listener", function()
        stack.passed_as(stack:get_from_kong("tls.test", "alice"), "alice")
        stack.unverified(stack:get_from_kong("tls.test", "mallory"))
        stack.unverified(stack:get_from_kong("tls.test", "nobody"))
        stack.unauthenticated(stack:get_from_kong("tls.test"))
      end)

      it("takes it from no header", function()
        stack.unauthenticated(stack:get_plain("tls.test"))
        local leaf = ":" .. ngx.encode_base64(ngx_ssl.cert_pem_to_der(stack:pem("alice"))) .. ":"
        stack.unauthenticated(stack:get_from_kong("tls.test", nil, { headers = { ["Client-Cert"] = leaf } }))
      end)

      it("has the chain in MsgPack:1, and only the leaf in ProtoBuf:1", function()
        local response = stack:get_from_kong("tls.test", "chained")
        if protocol == "msgpack" then
          stack.passed_as(response, "alice")
        else
          stack.unverified(response)
        end
        stack.passed_as(stack:get_from_kong("whole.test", "chained"), "alice")
      end)
    end)

    describe(title:format("tls, for everything"), function()
      local stack

      lazy_setup(function()
        stack = stacks.new(strategy, protocol)
        stack:insert_consumer("alice")
        stack:insert_route("any.test")
        stack:insert_plugin("mtls-auth", { ca_certificates = { stack.ca.id }, certificate_source = "tls" })
        stack:start { shim = false }
      end)

      lazy_teardown(function()
        stack:stop()
      end)

      it("has Kong ask in MsgPack:1, and not in ProtoBuf:1", function()
        if protocol == "msgpack" then
          stack.passed_as(stack:get_from_kong("any.test", "alice"), "alice")
          stack.passed_as(stack:get_from_kong("any.test", "chained"), "alice")
          stack.unverified(stack:get_from_kong("any.test", "mallory"))
        else
          stack.unauthenticated(stack:get_from_kong("any.test", "alice"))
        end
        stack.unauthenticated(stack:get_from_kong("any.test"))
      end)
    end)
  end
end
