// Uses the embedded ledger with the unmodified client library of the XRP ledger:
// node xrpl.js ws://HOST:PORT. Ends with 0 if everything held.
const assert = require('assert')
const xrpl = require('xrpl')

async function run(version, funded) {
  const client = new xrpl.Client(process.argv[2])
  client.apiVersion = version
  await client.connect()
  assert.strictEqual(client.networkID, 21338)
  const root = xrpl.Wallet.fromSeed('snoPBrXtMeMyMHUVTgbuqAfg1SUTb', { algorithm: 'secp256k1' })

  const expect = async (tx, wallet, result = 'tesSUCCESS') => {
    const r = await client.submitAndWait(tx, { wallet, autofill: true })
    assert.strictEqual(r.result.meta.TransactionResult, result, JSON.stringify(r.result))
    assert.strictEqual(r.result.validated, true)
    return r.result
  }
  const step = (name) => console.log('v' + version + ' ' + name)

  step('fund')
  const [alice, bob, gateway] = ['ed25519', 'ecdsa-secp256k1', 'ed25519'].map((a) => xrpl.Wallet.generate(a))
  for (const w of [alice, bob, gateway]) {
    const r = await expect({ TransactionType: 'Payment', Account: root.address, Destination: w.address, Amount: xrpl.xrpToDrops(1000) }, root)
    assert.strictEqual(r.meta.delivered_amount, '1000000000')
    assert.strictEqual(await client.getXrpBalance(w.address), 1000)
  }

  funded()

  step('subscribe')
  const ledgers = []
  const events = []
  client.on('ledgerClosed', (l) => ledgers.push(l))
  client.on('transaction', (t) => events.push(t))
  await client.request({ command: 'subscribe', streams: ['ledger', 'server'], accounts: [bob.address] })

  step('pay')
  const paid = await expect({ TransactionType: 'Payment', Account: alice.address, Destination: bob.address, Amount: '1234567' }, alice)
  while (!events.some((e) => (e.hash || e.transaction.hash) === paid.hash)) await new Promise((r) => setTimeout(r, 20))
  const event = events.find((e) => (e.hash || e.transaction.hash) === paid.hash)
  assert.strictEqual(event.validated, true)
  assert.strictEqual(event.meta.delivered_amount, '1234567')
  assert.strictEqual(event.engine_result, 'tesSUCCESS')
  assert.strictEqual(event.ledger_index, paid.ledger_index)
  await assert.rejects(client.submitAndWait({ TransactionType: 'Payment', Account: alice.address, Destination: xrpl.Wallet.generate().address, Amount: '1' }, { wallet: alice }).then((r) => {
    if (r.result.meta.TransactionResult !== 'tesSUCCESS') throw new Error(r.result.meta.TransactionResult)
  }), /tecNO_DST_INSUF/)

  step('trust lines')
  await expect({ TransactionType: 'AccountSet', Account: gateway.address, SetFlag: xrpl.AccountSetAsfFlags.asfDefaultRipple }, gateway)
  for (const w of [alice, bob]) {
    await expect({ TransactionType: 'TrustSet', Account: w.address, LimitAmount: { currency: 'EVR', issuer: gateway.address, value: '10000' } }, w)
  }
  const evr = (value) => ({ currency: 'EVR', issuer: gateway.address, value })
  await expect({ TransactionType: 'Payment', Account: gateway.address, Destination: alice.address, Amount: evr('500') }, gateway)
  await expect({ TransactionType: 'Payment', Account: alice.address, Destination: bob.address, Amount: evr('120.5') }, alice)
  const balances = await client.getBalances(bob.address)
  assert.ok(balances.some((b) => b.currency === 'EVR' && b.value === '120.5'), JSON.stringify(balances))
  const owed = await client.request({ command: 'gateway_balances', account: gateway.address, ledger_index: 'validated' })
  assert.strictEqual(owed.result.obligations.EVR, '500')
  const currencies = await client.request({ command: 'account_currencies', account: alice.address, ledger_index: 'validated' })
  assert.deepStrictEqual(currencies.result.receive_currencies, ['EVR'])

  step('offers')
  await expect({ TransactionType: 'OfferCreate', Account: alice.address, TakerGets: evr('100'), TakerPays: xrpl.xrpToDrops(50) }, alice)
  const offers = await client.request({ command: 'account_offers', account: alice.address, ledger_index: 'validated' })
  assert.strictEqual(offers.result.offers.length, 1)
  const book = await client.request({ command: 'book_offers', ledger_index: 'validated', taker_gets: { currency: 'EVR', issuer: gateway.address }, taker_pays: { currency: 'XRP' } })
  assert.strictEqual(book.result.offers.length, 1)
  assert.strictEqual(book.result.offers[0].Account, alice.address)
  await expect({ TransactionType: 'OfferCreate', Account: bob.address, TakerPays: evr('40'), TakerGets: xrpl.xrpToDrops(20) }, bob)
  const lines = await client.request({ command: 'account_lines', account: bob.address, ledger_index: 'validated' })
  assert.strictEqual(lines.result.lines[0].balance, '160.5')
  await expect({ TransactionType: 'OfferCancel', Account: alice.address, OfferSequence: offers.result.offers[0].seq }, alice)

  step('checks')
  await expect({ TransactionType: 'CheckCreate', Account: alice.address, Destination: bob.address, SendMax: '5000000' }, alice)
  const checks = await client.request({ command: 'account_objects', account: bob.address, type: 'check', ledger_index: 'validated' })
  assert.strictEqual(checks.result.account_objects.length, 1)
  await expect({ TransactionType: 'CheckCash', Account: bob.address, CheckID: checks.result.account_objects[0].index, Amount: '5000000' }, bob)

  step('tickets')
  await expect({ TransactionType: 'TicketCreate', Account: alice.address, TicketCount: 2 }, alice)
  const tickets = await client.request({ command: 'account_objects', account: alice.address, type: 'ticket', ledger_index: 'validated' })
  assert.strictEqual(tickets.result.account_objects.length, 2)
  await expect({ TransactionType: 'Payment', Account: alice.address, Destination: bob.address, Amount: '7', Sequence: 0, TicketSequence: tickets.result.account_objects[1].TicketSequence }, alice)

  step('multisign')
  const signers = [xrpl.Wallet.generate(), xrpl.Wallet.generate('ecdsa-secp256k1')]
  await expect({ TransactionType: 'SignerListSet', Account: alice.address, SignerQuorum: 2, SignerEntries: signers.map((s) => ({ SignerEntry: { Account: s.address, SignerWeight: 1 } })) }, alice)
  const together = await client.autofill({ TransactionType: 'Payment', Account: alice.address, Destination: bob.address, Amount: '99' }, 2)
  const blob = xrpl.multisign(signers.map((s) => s.sign(together, true).tx_blob))
  const both = await client.submitAndWait(blob)
  assert.strictEqual(both.result.meta.TransactionResult, 'tesSUCCESS')
  const again = await client.autofill({ TransactionType: 'Payment', Account: alice.address, Destination: bob.address, Amount: '98' }, 2)
  const decoded = xrpl.decode(xrpl.multisign(signers.map((s) => s.sign(again, true).tx_blob)))
  decoded.Signers.reverse()
  const sent = await client.request({ command: 'submit_multisigned', tx_json: decoded })
  assert.strictEqual(sent.result.engine_result, 'tesSUCCESS')
  const info = await client.request({ command: 'account_info', account: alice.address, signer_lists: true, ledger_index: 'validated' })
  assert.strictEqual((info.result.signer_lists || info.result.account_data.signer_lists)[0].SignerEntries.length, 2)

  step('history')
  let all = []
  let marker
  do {
    const r = await client.request({ command: 'account_tx', account: bob.address, ledger_index_min: -1, ledger_index_max: -1, limit: 3, forward: true, marker })
    all = all.concat(r.result.transactions)
    marker = r.result.marker
  } while (marker)
  const back = await client.request({ command: 'account_tx', account: bob.address, limit: 100 })
  const id = (e) => e.hash || e.tx.hash
  assert.ok(all.length > 5)
  for (const [i, e] of back.result.transactions.reverse().slice(0, all.length).entries()) assert.strictEqual(id(e), id(all[i]))
  const found = await client.request({ command: 'tx', transaction: paid.hash })
  assert.strictEqual(found.result.hash, paid.hash)
  const ledger = await client.request({ command: 'ledger', ledger_index: paid.ledger_index, transactions: true, expand: true })
  assert.ok(ledger.result.ledger.transactions.some((t) => t.hash === paid.hash))
  const data = await client.request({ command: 'ledger_data', ledger_index: 'validated', limit: 5 })
  assert.strictEqual(data.result.state.length, 5)
  const root_entry = await client.request({ command: 'ledger_entry', account_root: bob.address, ledger_index: 'validated' })
  assert.strictEqual(root_entry.result.node.Account, bob.address)

  step('errors')
  const refused = (request, name) => assert.rejects(client.request(request), (e) => { assert.strictEqual(e.data.error, name, JSON.stringify(e.data)); return true })
  await refused({ command: 'account_info', account: xrpl.Wallet.generate().address }, 'actNotFound')
  await refused({ command: 'account_info', account: 'bob' }, 'actMalformed')
  await refused({ command: 'tx', transaction: 'AB'.repeat(32) }, 'txnNotFound')
  await refused({ command: 'ledger', ledger_index: 4000000000 }, 'lgrNotFound')
  await refused({ command: 'ledger_entry', index: 'AB'.repeat(32), ledger_index: 'validated' }, 'entryNotFound')
  await refused({ command: 'dance' }, 'unknownCmd')
  await refused({ command: 'subscribe', streams: ['dance'] }, 'malformedStream')
  await refused({ command: 'submit', secret: 'snoPBrXtMeMyMHUVTgbuqAfg1SUTb', tx_json: {} }, 'notSupported')

  assert.ok(ledgers.length > 5)
  for (let i = 1; i < ledgers.length; i++) assert.strictEqual(ledgers[i].ledger_index, ledgers[i - 1].ledger_index + 1)
  await client.request({ command: 'unsubscribe', streams: ['ledger', 'server'], accounts: [bob.address] })
  await client.disconnect()
}

// Both at the same time, except where they use the same account.
async function main() {
  let first
  const second = new Promise((resolve) => { first = run(2, resolve) }).then(() => run(1, () => {}))
  await Promise.all([first, second])
}

main().then(() => console.log('done'), (e) => { console.error(e); process.exit(1) })
