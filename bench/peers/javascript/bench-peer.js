// What mtls-auth does for a request that passes, in Kong's JavaScript PDK: the proof, the chain, the consumer, the headers.

const crypto = require('crypto')

const CONTEXT = Buffer.from('kong-mtls-auth Client-Cert-Proof v1')
const LIFETIME = 30
const HANDOFF = ['client-cert', 'client-cert-chain', 'client-cert-proof']
const CLIENT_AUTH = '1.3.6.1.5.5.7.3.2'

const sha256 = (...parts) => parts.reduce((hash, part) => hash.update(part), crypto.createHash('sha256')).digest()
const only = value => Array.isArray(value) ? value[0] : value
const der = value => Buffer.from(value.trim().slice(1, -1), 'base64')

function length(number) {
  const bytes = Buffer.alloc(8)
  bytes.writeBigUInt64BE(BigInt(number))
  return bytes
}

class Plugin {
  constructor(config) {
    this.ca = new crypto.X509Certificate(config.ca)
    this.key = Buffer.from(config.key, 'base64')
    this.verified = new Map()
    this.consumers = new Map()
  }

  async access(kong) {
    const headers = await kong.request.getHeaders(1000)
    const [leafHeader, chainHeader, proof] = HANDOFF.map(name => only(headers[name]))
    if (!leafHeader) return kong.response.error(401, 'No required TLS certificate was sent')
    const leaf = der(leafHeader)
    const chain = chainHeader ? chainHeader.split(',').map(der) : []
    const name = this.isProven(leaf, chain, proof) && this.name(leaf, chain)
    const consumer = name && await this.consumer(kong, name)
    if (!consumer) return kong.response.error(401, 'TLS certificate failed verification')
    // An empty list removes a header.
    const changes = {
      'X-Consumer-ID': consumer.id, 'X-Consumer-Username': consumer.username, 'X-Credential-Identifier': name
    }
    for (const header of HANDOFF) if (header in headers) changes[header] = []
    await kong.service.request.setHeaders(changes)
    await kong.client.authenticate(consumer, { id: name, consumer: { id: consumer.id } })
  }

  // Whether the shim wrote this, just now.
  isProven(leaf, chain, proof) {
    const [version, issuedAt, sniText, mac] = proof.split('.')
    const sni = Buffer.from(sniText, 'base64url')
    const made = crypto.createHmac('sha256', this.key).update(CONTEXT).update(length(issuedAt)).update(length(sni.length))
      .update(sni).update(sha256(leaf)).update(sha256(...chain.flatMap(each => [length(each.length), each]))).digest()
    const given = Buffer.from(mac, 'base64url')
    return version === 'v1' && made.length === given.length && crypto.timingSafeEqual(made, given) &&
      Math.abs(Date.now() / 1000 - Number(issuedAt)) <= LIFETIME
  }

  // The CN of a certificate that is trusted. It is verified once.
  name(leaf, chain) {
    const digest = sha256(leaf, ...chain).toString('base64')
    if (!this.verified.has(digest)) this.verified.set(digest, this.verify(leaf, chain))
    return this.verified.get(digest)
  }

  verify(leaf, chain) {
    const path = [...[leaf, ...chain].map(each => new crypto.X509Certificate(each)), this.ca]
    for (let position = 0; position + 1 < path.length; position++) {
      const [subject, issuer] = [path[position], path[position + 1]]
      if (!subject.checkIssued(issuer) || !subject.verify(issuer.publicKey)) return null
      if (Date.now() < Date.parse(subject.validFrom) || Date.now() > Date.parse(subject.validTo)) return null
    }
    if (!path[0].keyUsage.includes(CLIENT_AUTH)) return null
    return /^CN=(.*)$/m.exec(path[0].subject)[1]
  }

  async consumer(kong, name) {
    if (!this.consumers.has(name)) this.consumers.set(name, await kong.client.loadConsumer(name, true))
    return this.consumers.get(name)
  }
}

module.exports = {
  Plugin,
  Schema: [{ ca: { type: 'string', required: true } }, { key: { type: 'string', required: true } }],
  Version: '0.1.0',
  Priority: 1600
}
