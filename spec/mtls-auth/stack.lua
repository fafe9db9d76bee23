--- This knows how a Kong with mtls-auth, a tls-shim and an upstream is set up for a spec, and how a client talks to them.

local helpers = require "spec.helpers"
-- With the assertions of Kong's helpers, which the global has in spec files only.
local assert = require "luassert"
local cjson = require "cjson.safe"
local ngx_ssl = require "ngx.ssl"
local socket = require "socket"
local declarative = require "kong.db.declarative"
local path = require "pl.path"
local file = require "pl.file"

local PLUGIN_NAME = "mtls-auth"
local LOOPBACK = "127.0.0.1"
-- Under another name than the plugin's, for which Kong would start a server that is installed.
local SERVER_NAME = "mtls-auth-spec"
-- For what takes no time but on a slow machine, in seconds.
local PATIENCE = 30

local FOLDER = path.dirname(path.abspath(debug.getinfo(1, "S").source:sub(2)))

local TABLES = {
  "routes", "services", "plugins", "consumers", "ca_certificates", "keyauth_credentials", "acls",
}

--- The guard of kong-conf/guard.yml, which a test of the project holds to that file.
local GUARD = [[
-- kong-mtls-auth guard v1: Kong lets requests pass while the plugin server does not answer. This does not.
if not (kong.client.get_credential() or kong.client.get_consumer()) then
  return kong.response.error(503, "Authentication is not available")
end
]]

--- What a client may say of itself, in every spelling.
local FORGED = {
  ["X-Consumer-ID"] = "forged", ["x_consumer_id"] = "forged", ["X-CONSUMER-USERNAME"] = "forged",
  ["x_Consumer_Username"] = "forged", ["X-Consumer-Custom-ID"] = "forged", ["X-Consumer_Custom-ID"] = "forged",
  ["X-Credential-Identifier"] = "forged", ["x_credential_identifier"] = "forged",
  ["X-Anonymous-Consumer"] = "forged", ["x_anonymous_consumer"] = "forged",
  ["X-Client-Cert-Dn"] = "forged", ["x_client_cert_dn"] = "forged",
  ["X-Client-Cert-San"] = "forged", ["x_client_cert_san"] = "forged",
  ["Client-Cert"] = "forged", ["client_cert"] = "forged", ["Client-Cert-Chain"] = "forged",
  ["client_cert_chain"] = "forged", ["Client-Cert-Proof"] = "forged", ["client_cert_proof"] = "forged",
}

local TEXTS = {
  none = "No required TLS certificate was sent",
  unverified = "TLS certificate failed verification",
  fault = "An unexpected error occurred",
  unguarded = "Authentication is not available",
}


local function run(command, ...)
  local ok, stderr, stdout = helpers.execute(command:format(...))
  assert(ok, stderr)
  return (stdout:gsub("%s+$", ""))
end


-- Ports that nobody listens on. They are found together, so that they differ.
local function free_ports(count)
  local sockets, ports = {}, {}
  for i = 1, count do
    sockets[i] = assert(socket.bind(LOOPBACK, 0))
    ports[i] = tonumber((select(2, sockets[i]:getsockname())))
  end
  for _, each in ipairs(sockets) do
    each:close()
  end
  return ports
end


local function program(variable, name)
  local configured = os.getenv(variable)
  if configured then
    return configured
  end
  for _, profile in ipairs { "release", "debug" } do
    local built = path.normpath(path.join(FOLDER, "../../target", profile, name))
    if path.exists(built) then
      return built
    end
  end
  return run("command -v %s", name)
end


local function listens(port)
  local connection = ngx.socket.tcp()
  local ok = connection:connect(LOOPBACK, port)
  connection:close()
  return ok
end


--- The wire protocols that the specs run in: that of MTLS_AUTH_PROTOCOL, or both.
local function each_protocol()
  local chosen = os.getenv("MTLS_AUTH_PROTOCOL")
  return ipairs(chosen and { chosen } or { "msgpack", "protobuf" })
end


local Stack = {}
Stack.__index = Stack


--- Makes a folder with certificates, and an empty configuration of Kong; nothing runs yet.
local function new(strategy, protocol)
  local ports = free_ports(4)
  local self = setmetatable({
    strategy = strategy,
    protocol = protocol,
    upstream_port = ports[1],
    shim_port = ports[2],
    ocsp_port = ports[3],
    silent_port = ports[4],
    children = {},
    nulls = {},
    mtls_auth = program("MTLS_AUTH", "mtls-auth"),
    tls_shim = program("TLS_SHIM", "tls-shim"),
    -- Short, for the path of a socket has 107 bytes at most.
    folder = run("mktemp -d /tmp/mtls-auth-spec.XXXXXX"),
  }, Stack)
  self.socket = self:path("mtls-auth.socket")
  self.declarative_config = self:path("kong.yml")
  self.query_command = ("%s -dump --protocol %s"):format(self.mtls_auth, protocol)
  run(
    "%s/fixtures/make-certificates %s http://%s:%d http://%s:%d/ca.crl",
    FOLDER, self.folder, LOOPBACK, self.ocsp_port, LOOPBACK, self.upstream_port
  )
  -- For the shim and the plugin server alike, whoever starts first.
  run("(umask 077 && openssl rand -base64 32 >%s/proof.key)", self.folder)

  -- The specs' own process checks entities by the plugin's schema, too.
  helpers.test_conf.pluginservers = {
    { name = SERVER_NAME, socket = self.socket, query_command = self.query_command },
  }
  self.bp = assert(helpers.get_db_utils(strategy, TABLES, { PLUGIN_NAME }))
  self.service = self.bp.services:insert {
    name = "upstream", host = LOOPBACK, port = self.upstream_port, protocol = "http", retries = 0,
  }
  self.ca = self:insert_ca("ca")
  return self
end


function Stack:path(name)
  return ("%s/%s"):format(self.folder, name)
end


--- The certificate of this name, with its chain where it has one.
function Stack:pem(name)
  return assert(file.read(self:path(name .. ".crt")))
end


function Stack:insert_ca(name)
  return self.bp.ca_certificates:insert { cert = self:pem(name) }
end


--- A consumer with this username, and a custom_id only if there is one here.
function Stack:insert_consumer(username, custom_id)
  return self.bp.consumers:insert { username = username, custom_id = custom_id or ngx.null }
end


function Stack:insert_plugin(name, config, scope)
  local plugin = self.bp.plugins:insert(kong.table.merge({ name = name, config = config }, scope))
  for field, value in pairs(config) do
    if value == ngx.null then
      table.insert(self.nulls, { plugin = plugin.id, field = field })
    end
  end
end


--- A route for this server name, with plugins by their name: {["mtls-auth"] = {ca_certificates = ...}}.
function Stack:insert_route(host, plugins)
  local route = self.bp.routes:insert {
    hosts = { host }, snis = { host }, paths = { "/" }, service = { id = self.service.id },
  }
  for name, config in pairs(plugins or {}) do
    self:insert_plugin(name, config, { route = { id = route.id } })
  end
  return route
end


--- A route with mtls-auth, which trusts the first CA unless `config` says otherwise.
function Stack:insert_protected_route(host, config, others)
  local plugins = { [PLUGIN_NAME] = kong.table.merge({ ca_certificates = { self.ca.id } }, config) }
  return self:insert_route(host, kong.table.merge(plugins, others))
end


-- An upstream that answers with what it was asked for, as Kong's own mock does; and a server of CRLs, and one that hangs.
local function upstream(self)
  return ([[
    server {
      listen %s:%d;
      underscores_in_headers on;
      large_client_header_buffers 8 64k;
      access_log logs/upstream.log;
      location = /ca.crl {
        access_log off;
        alias %s;
      }
      location /hang {
        access_log off;
        content_by_lua_block { ngx.sleep(20) }
      }
      location / {
        content_by_lua_block {
          ngx.header["X-Powered-By"] = "mock_upstream"
          ngx.header["Content-Type"] = "application/json"
          ngx.print(require("cjson").encode {
            headers = setmetatable(ngx.req.get_headers(0), nil),
            uri = ngx.var.request_uri,
          })
        }
      }
    }
  ]]):format(LOOPBACK, self.upstream_port, self:path("ca.crl"))
end


-- What Kong's helpers would do at its start, and with what they would leave out: a null in place of a default.
local function write_declarative_config(self)
  local entities = self.bp.done()
  for _, null in ipairs(self.nulls) do
    for _, plugin in ipairs(entities.plugins) do
      if plugin.id == null.plugin then
        plugin.config[null.field] = ngx.null
      end
    end
  end
  assert(declarative.to_yaml_file(entities, self.declarative_config))
end


--- Where the plugin server looks CAs and consumers up.
function Stack:entity_options(source)
  source = source or (self.strategy == "off" and "declarative" or "admin")
  if source == "declarative" then
    return "--declarative-config " .. self.declarative_config
  elseif source == "admin" then
    return "--admin-url " .. self.admin_url
  end
  assert(source == "kong", source)
  return ""
end


--- Starts Kong with the plugin server and a tls-shim in front.
--
-- options.entities: "declarative", "admin" or "kong"; otherwise the one that fits the strategy
-- options.server: more options of the plugin server
-- options.managed: false where Kong does not start the plugin server; see `start_server`
-- options.env: more of Kong's configuration
-- options.shim: false for no shim, or more of its settings
function Stack:start(options)
  options = options or {}
  self.admin_url = ("http://%s:%d"):format(LOOPBACK, helpers.test_conf.admin_listeners[1].port)
  self.start_command = ("%s --kong-prefix %s --socket %s --proof-key-file %s %s %s"):format(
    self.mtls_auth, helpers.test_conf.prefix, self.socket, self:path("proof.key"),
    self:entity_options(options.entities), options.server or ""
  )
  local prefix = "pluginserver_" .. SERVER_NAME:gsub("-", "_")
  local env = kong.table.merge({
    database = self.strategy,
    nginx_conf = "spec/fixtures/custom_nginx.template",
    plugins = "bundled," .. PLUGIN_NAME,
    pluginserver_names = SERVER_NAME,
    [prefix .. "_socket"] = self.socket,
    [prefix .. "_query_cmd"] = self.query_command,
    trusted_ips = LOOPBACK .. "/32",
    nginx_proxy_large_client_header_buffers = "8 64k",
  }, options.env)
  if self.strategy == "off" then
    write_declarative_config(self)
    env.declarative_config = self.declarative_config
  end
  if options.managed ~= false then
    env[prefix .. "_start_cmd"] = self.start_command
  end
  if run("id -u") == "0" then
    -- Kong's workers, and what they start, would be nobody, who may not read the folder.
    env.nginx_user = "root root"
  end
  assert(helpers.start_kong(env, nil, nil, { http_mock = { upstream = upstream(self) } }))
  self.started = true
  if options.managed ~= false then
    self:wait_for_server()
  end
  if options.shim ~= false then
    self:start_shim(options.shim)
  end
end


--- A process in the background, which `stop` ends.
function Stack:spawn(name, command, ...)
  local pid = run("%s >%s 2>&1 </dev/null & echo $!", command:format(...), self:path(name .. ".log"))
  self.children[name] = pid
  return pid
end


--- Starts the plugin server where Kong does not.
function Stack:start_server()
  self:spawn("server", "exec " .. self.start_command)
  self:wait_for_server()
end


--- Kills the plugin server that was started so, unless it is dead already.
function Stack:kill_server()
  os.execute(("kill -KILL %s 2>/dev/null"):format(self.children.server))
  helpers.wait_until(function() return not self:serves() end, PATIENCE)
end


--- Whether anybody listens on the socket of the plugin server.
function Stack:serves()
  if not path.exists(self.socket) then
    return false
  end
  local connection = ngx.socket.tcp()
  local ok = connection:connect("unix:" .. self.socket)
  connection:close()
  return ok
end


function Stack:wait_for_server()
  helpers.wait_until(function() return self:serves() end, PATIENCE)
end


--- The process that Kong has started last as the plugin server.
function Stack:managed_server_pid()
  local pid
  for found in file.read(helpers.test_conf.nginx_err_logs):gmatch("%[pluginserver%] started, pid (%d+)") do
    pid = found
  end
  return pid
end


function Stack:start_shim(settings)
  local kong_settings = self.strategy == "off" and { declarative_config = self.declarative_config }
                        or { admin_url = self.admin_url, snapshot_file = "off" }
  settings = kong.table.merge({
    listen = { ("%s:%d"):format(LOOPBACK, self.shim_port) },
    upstream = ("http://%s:%d"):format(LOOPBACK, helpers.get_proxy_port(false)),
    kong = kong_settings,
    default_certificate = { cert = self:path("server.crt"), key = self:path("server.key") },
    proof_key_file = self:path("proof.key"),
  }, settings)
  -- JSON is YAML.
  assert(file.write(self:path("shim.yml"), cjson.encode(settings)))
  self:spawn("shim", "exec %s --config %s", self.tls_shim, self:path("shim.yml"))
  helpers.wait_until(function() return listens(self.shim_port) end, PATIENCE)
end


--- Ends all of it, and takes the folder away.
function Stack:stop()
  for name, pid in pairs(self.children) do
    os.execute(("kill -KILL %s 2>/dev/null"):format(pid))
    self.children[name] = nil
  end
  if self.started then
    local server = self:managed_server_pid()
    assert(helpers.stop_kong())
    if server then
      -- It ends with Kong; if it does not, it shall not outlive the spec.
      os.execute(("kill -KILL %s 2>/dev/null"):format(server))
    end
  end
  run("rm -rf %s", self.folder)
end


local function request(client, host, options)
  local headers = kong.table.merge({ Host = host }, options.headers)
  local response = client:get(options.path or "/request", { headers = headers })
  response:read_body()
  client:close()
  return response
end


local function tls_client(self, port, host, options)
  local settings = {
    scheme = "https", host = LOOPBACK, port = port, timeout = 60000,
    ssl_server_name = options.sni or host, ssl_verify = false,
  }
  if options.certificate then
    settings.ssl_client_cert = assert(ngx_ssl.parse_pem_cert(self:pem(options.certificate)))
    settings.ssl_client_priv_key = assert(ngx_ssl.parse_pem_priv_key(file.read(self:path(options.certificate .. ".key"))))
  end
  return helpers.http_client(settings)
end


--- Asks through the shim, with the certificate of that name or without any.
function Stack:get(host, certificate, options)
  options = kong.table.merge({ certificate = certificate }, options)
  return request(tls_client(self, self.shim_port, host, options), host, options)
end


--- Asks Kong's own TLS listener.
function Stack:get_from_kong(host, certificate, options)
  options = kong.table.merge({ certificate = certificate }, options)
  return request(tls_client(self, helpers.get_proxy_port(true), host, options), host, options)
end


--- Asks Kong's plain port, past any TLS front.
function Stack:get_plain(host, headers)
  return request(helpers.proxy_client(), host, { headers = headers })
end


--- How many requests have arrived at the upstream.
function Stack:arrivals()
  local log = file.read(helpers.test_conf.prefix .. "/logs/upstream.log") or ""
  return select(2, log:gsub("\n", ""))
end


--- Asserts that Kong, and not the upstream, has answered with this status and message.
function Stack.refused(response, status, message)
  local body = cjson.decode(assert.res_status(status, response))
  assert.equal(message, body.message)
  assert.is_nil(response.headers["X-Powered-By"])
  return body
end


function Stack.unauthenticated(response)
  return Stack.refused(response, 401, TEXTS.none)
end


function Stack.unverified(response)
  return Stack.refused(response, 401, TEXTS.unverified)
end


--- Asserts that the request has arrived at the upstream, and returns the headers that it had there, by lower-case names.
function Stack.passed(response)
  local body = assert.res_status(200, response)
  assert.equal("mock_upstream", response.headers["X-Powered-By"])
  return cjson.decode(body).headers
end


--- Asserts that the request has arrived as that of the consumer with this username.
function Stack.passed_as(response, username)
  local headers = Stack.passed(response)
  assert.equal(username, headers["x-consumer-username"])
  return headers
end


--- Asserts that nothing of FORGED has arrived.
function Stack.without_forgeries(headers)
  for name, value in pairs(headers) do
    assert.not_equal("forged", value, name)
  end
end


return {
  FORGED = FORGED,
  PLUGIN_NAME = PLUGIN_NAME,
  GUARD = GUARD,
  TEXTS = TEXTS,
  PATIENCE = PATIENCE,
  each_protocol = each_protocol,
  program = program,
  new = new,
  run = run,
}
