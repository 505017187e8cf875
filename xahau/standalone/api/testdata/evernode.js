// Uses the embedded ledger with the unmodified client library of Evernode:
// node evernode.js ws://HOST:PORT. Ends with 0 if everything held.
const assert = require('assert')
const ev = require('evernode-js-client')
const lib = require('xrpl-accountlib')

async function main() {
  const server = process.argv[2]
  const first = ['rHb9CJAWyB4rj91VRWn96DkukG4bwdtyTh', 'snoPBrXtMeMyMHUVTgbuqAfg1SUTb']
  ev.Defaults.set({ rippledServer: server, networkID: 21338, governorAddress: first[0] })
  const api = new ev.XrplApi(server)
  ev.Defaults.set({ xrplApi: api })
  await api.connect()
  assert.ok(api.ledgerIndex > 0)

  const root = new ev.XrplAccount(...first)
  const [host, tenant] = [0, 1].map(() => {
    const a = lib.generate.familySeed({ algorithm: 'secp256k1' })
    return new ev.XrplAccount(a.address, a.secret.familySeed)
  })
  for (const a of [host, tenant]) {
    const paid = await root.makePayment(a.address, '100000000', 'XRP')
    assert.strictEqual(paid.code, 'tesSUCCESS')
    assert.strictEqual((await a.getInfo()).Balance, '100000000')
  }
  assert.strictEqual(await new ev.XrplAccount('rPT1Sjq2YGrBMTttX4GZHjKu9dyfzbpAYe').exists(), false)

  const events = []
  tenant.on(ev.XrplApiEvents.PAYMENT, (tx) => events.push(tx))
  await tenant.subscribe()
  const memo = [{ type: 'evnTest', format: 'text/plain', data: 'hello' }]
  const paid = await host.makePayment(tenant.address, '5', 'XRP', null, memo)
  for (let i = 0; events.length === 0 && i < 500; i++) await new Promise((r) => setTimeout(r, 20))
  assert.strictEqual(events[0].hash, paid.id)
  assert.strictEqual(events[0].Memos[0].data, 'hello')

  assert.strictEqual((await host.mintURIToken('lease')).code, 'tesSUCCESS')
  const [token] = await host.getURITokens()
  assert.strictEqual((await host.sellURIToken(token.index, '7', 'XRP')).code, 'tesSUCCESS')
  const [offer] = await host.getURITokens()
  assert.strictEqual((await tenant.buyURIToken(offer)).code, 'tesSUCCESS')
  assert.strictEqual((await tenant.getURITokens()).length, 1)
  assert.strictEqual((await host.getURITokens()).length, 0)
  assert.strictEqual((await tenant.getTrustLines()).length, 0)
  await api.disconnect()
}

main().then(() => { console.log('done'); process.exit(0) }, (e) => { console.error(e); process.exit(1) })
