local helpers = require "spec.helpers"
local stacks = require "spec.mtls-auth.stack"
local cjson = require "cjson"

local PEM = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----"
local ID = "6ae7a1a4-0cf0-4b6a-9d3f-3f7c5a0b1c2d"


local function plugin_info(protocol)
  local command = ("%s -dump --protocol %s"):format(stacks.program("MTLS_AUTH", "mtls-auth"), protocol)
  return cjson.decode(stacks.run("%s", command))
end


for _, protocol in stacks.each_protocol() do
  describe("Plugin: mtls-auth (schema) [#" .. protocol .. "]", function()
    local info, schema

    lazy_setup(function()
      info = plugin_info(protocol)
      schema = info.Plugins[1].Schema
    end)

    -- What Kong makes of a configuration that has everything it must have, and this; or why not.
    local function validate(config, entity)
      config = kong.table.merge({ ca_certificates = { ID } }, config)
      local plugin, err = helpers.validate_plugin_config_schema(config, schema, entity)
      return plugin and plugin.config, err
    end

    local function accepts(config)
      local validated, err = validate(config)
      assert.is_nil(err)
      return validated
    end

    -- Refused because of that field of the configuration.
    local function refuses(field, config)
      local validated, err = validate(config)
      assert.is_nil(validated)
      assert.not_nil(err.config and err.config[field], "expected an error of " .. field .. ": " .. cjson.encode(err))
      return err.config[field]
    end

    it("says which protocol Kong is to speak, and when it runs", function()
      assert.equal(protocol == "msgpack" and "MsgPack:1" or "ProtoBuf:1", info.Protocol)
      assert.equal("mtls-auth", info.Plugins[1].Name)
      assert.equal(1600, info.Plugins[1].Priority)
      local phases = protocol == "msgpack" and { "certificate", "access" } or { "access" }
      assert.same(phases, info.Plugins[1].Phases)
    end)

    it("fills in the defaults", function()
      local config = accepts {}
      assert.same({
        ca_certificates = { ID },
        consumer_by = { "username", "custom_id" },
        credentials = {},
        san_dirname_matcher = {},
        skip_consumer_lookup = false,
        authenticated_group_by = "CN",
        allow_partial_chain = false,
        allow_server_auth_usage = false,
        cache_ttl = 60,
        revocation_check_mode = "IGNORE_CA_ERROR",
        http_timeout = 30000,
        cert_cache_ttl = 60000,
        ssl_verify = true,
        send_ca_dn = false,
        inject_client_cert_details = false,
        client_cert_header_name = "X-Client-Cert",
        client_serial_header_name = "X-Client-Cert-Serial",
        client_cert_issuer_dn_header_name = "X-Client-Cert-Issuer-DN",
        client_cert_subject_dn_header_name = "X-Client-Cert-Subject-DN",
        client_cert_fingerprint_header_name = "X-Client-Cert-Fingerprint",
        certificate_source = "shim",
        secure_source = true,
        anonymous = ngx.null,
        default_consumer = ngx.null,
        certificate_header_name = ngx.null,
        certificate_header_format = ngx.null,
        http_proxy_host = ngx.null,
        http_proxy_port = ngx.null,
        https_proxy_host = ngx.null,
        https_proxy_port = ngx.null,
      }, config)
    end)

    it("does not apply to a consumer", function()
      local _, err = validate({}, { consumer = { id = ID } })
      assert.not_nil(err.consumer)
    end)

    it("applies to HTTP and gRPC only", function()
      local _, err = validate({}, { protocols = { "tcp" } })
      assert.not_nil(err.protocols)
    end)

    it("takes CAs by id and as PEM, and at least one", function()
      accepts { ca_certificates = { ID, ID:upper(), PEM } }
      refuses("ca_certificates", { ca_certificates = {} })
      refuses("ca_certificates", { ca_certificates = { "my-ca" } })
      local _, err = helpers.validate_plugin_config_schema({}, schema)
      assert.equal("required field missing", err.config.ca_certificates)
    end)

    it("takes only the values that there are", function()
      accepts { consumer_by = {} }
      refuses("consumer_by", { consumer_by = { "email" } })
      refuses("revocation_check_mode", { revocation_check_mode = "LENIENT" })
      refuses("authenticated_group_by", { authenticated_group_by = "OU" })
      accepts { authenticated_group_by = ngx.null }
      refuses("certificate_source", { certificate_source = "nginx" })
      refuses("no_such_field", { no_such_field = true })
    end)

    it("bounds times and ports", function()
      for _, field in ipairs { "cache_ttl", "cert_cache_ttl" } do
        accepts { [field] = 0 }
        accepts { [field] = 31536000 }
        refuses(field, { [field] = -1 })
        refuses(field, { [field] = 31536001 })
      end
      refuses("http_timeout", { http_timeout = 0 })
      refuses("http_timeout", { http_timeout = 3600001 })
      refuses("http_proxy_port", { http_proxy_host = "proxy", http_proxy_port = 65536 })
    end)

    it("has manual mappings with a name and a consumer", function()
      accepts { credentials = { { subject_name = "a", consumer = "alice", ca_certificate = ID, id = "mapping-1" } } }
      refuses("credentials", { credentials = { { subject_name = "a" } } })
      refuses("credentials", { credentials = { { consumer = "alice" } } })
      refuses("credentials", { credentials = { { subject_name = "", consumer = "alice" } } })
      refuses("credentials", { credentials = { { subject_name = "a", consumer = "alice", ca_certificate = "my-ca" } } })
    end)

    it("needs name and format of the header where that is the source, and nowhere else", function()
      accepts {
        certificate_source = "header", certificate_header_name = "X-Cert", certificate_header_format = "url_encoded",
      }
      refuses("certificate_header_name", { certificate_source = "header", certificate_header_format = "url_encoded" })
      refuses("certificate_header_format", { certificate_source = "header", certificate_header_name = "X-Cert" })
      refuses("certificate_header_format", {
        certificate_source = "header", certificate_header_name = "X-Cert", certificate_header_format = "pem",
      })
      for _, source in ipairs { "shim", "tls" } do
        refuses("certificate_header_name", { certificate_source = source, certificate_header_name = "X-Cert" })
        refuses("certificate_header_format", { certificate_source = source, certificate_header_format = "url_encoded" })
      end
    end)

    it("sends CA names through the shim only", function()
      accepts { send_ca_dn = true }
      refuses("send_ca_dn", { certificate_source = "tls", send_ca_dn = true })
      refuses("send_ca_dn", {
        certificate_source = "header", certificate_header_name = "X-Cert", certificate_header_format = "url_encoded",
        send_ca_dn = true,
      })
    end)

    it("has host and port of a proxy together", function()
      for _, scheme in ipairs { "http", "https" } do
        local host, port = scheme .. "_proxy_host", scheme .. "_proxy_port"
        accepts { [host] = "proxy", [port] = 3128 }
        for _, config in ipairs { { [host] = "proxy" }, { [port] = 3128 } } do
          local validated, err = validate(config)
          assert.is_nil(validated)
          assert.matches("all or none of these fields must be set", cjson.encode(err), 1, true)
        end
      end
    end)

    it("tells two details in two headers", function()
      accepts { client_cert_header_name = "X-Cert", client_serial_header_name = ngx.null }
      local validated, err = validate { client_cert_header_name = "X-Cert", client_serial_header_name = "X-Cert" }
      assert.is_nil(validated)
      assert.matches("must be distinct", cjson.encode(err), 1, true)
    end)

    it("has no header carry a certificate that says something else already", function()
      for _, name in ipairs { "X-Consumer-ID", "x_consumer_username", "X-Anonymous-Consumer", "Client-Cert-Proof" } do
        refuses("client_cert_header_name", { client_cert_header_name = name })
        refuses("certificate_header_name", {
          certificate_source = "header", certificate_header_name = name, certificate_header_format = "url_encoded",
        })
      end
      refuses("client_cert_header_name", { client_cert_header_name = "X Cert" })
    end)
  end)
end


for _, strategy in helpers.all_strategies() do
  for _, protocol in stacks.each_protocol() do
    describe("Plugin: mtls-auth (Admin API) [#" .. strategy .. ", #" .. protocol .. "]", function()
      local stack, admin_client

      lazy_setup(function()
        stack = stacks.new(strategy, protocol)
        stack:start { shim = false }
      end)

      lazy_teardown(function()
        stack:stop()
      end)

      before_each(function()
        admin_client = helpers.admin_client()
      end)

      after_each(function()
        admin_client:close()
      end)

      local function validate(config)
        return admin_client:post("/schemas/plugins/validate", {
          body = { name = "mtls-auth", config = config },
          headers = { ["Content-Type"] = "application/json" },
        })
      end

      it("has the plugin", function()
        local fields = cjson.decode(assert.res_status(200, admin_client:get("/schemas/plugins/mtls-auth"))).fields
        assert.is_true(#fields > 0)
      end)

      it("accepts and refuses configurations", function()
        assert.res_status(200, validate { ca_certificates = { stack.ca.id } })
        local body = assert.res_status(400, validate { ca_certificates = { stack.ca.id }, certificate_source = "header" })
        assert.matches("certificate_header_name", body, 1, true)
      end)
    end)
  end
end
