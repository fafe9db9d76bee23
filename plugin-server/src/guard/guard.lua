-- kong-mtls-auth guard v1: Kong lets requests pass while the plugin server does not answer. This does not.
if not (kong.client.get_credential() or kong.client.get_consumer()) then
  return kong.response.error(503, "Authentication is not available")
end
