// Usage: client.js LIBRARY PROTOCOL TRUSTED SERVER
// Talks to a contract that answers every input with its text and "!", as an
// app would that uses the library. Prints a line of JSON per step.
const [library, protocol, trusted, server] = process.argv.slice(2);
const HotPocket = require(library);
HotPocket.setLogLevel && HotPocket.setLogLevel(1);

const say = o => console.log(JSON.stringify(o));
const text = o => Buffer.isBuffer(o) ? o.toString() : o;

(async () => {
    const keys = await HotPocket.generateKeys();
    const client = await HotPocket.createClient([server], keys, {
        protocol: HotPocket.protocols[protocol],
        trustedServerKeys: trusted === '-' ? null : trusted.split(','),
    });
    const outputs = [];
    let wake = () => { };
    client.on(HotPocket.events.contractOutput, r => { outputs.push(...r.outputs.map(text)); wake(); });
    if (!await client.connect())
        throw new Error('not connected');
    for (let i = 0; i < 3; i++) {
        const input = await client.submitContractInput(protocol === 'bson' ? Buffer.from('hello ' + i) : 'hello ' + i);
        const status = await input.submissionStatus;
        say({ status: status.status, reason: status.reason || '' });
        while (outputs.length <= i)
            await new Promise((ok, bad) => { wake = ok; setTimeout(() => bad(new Error('no output')), 10000).unref(); });
    }
    say({ outputs });
    say({ read: text(await client.submitContractReadRequest(protocol === 'bson' ? Buffer.from('who') : 'who')) });
    const stat = await client.getStatus();
    say({ vote: stat.voteStatus, members: stat.currentUnl.length });
    const lcl = await client.getLcl();
    const ledger = await client.getLedgerBySeqNo(lcl.ledgerSeqNo, false, false);
    say({ same: text(ledger.hash).toString('hex') === text(lcl.ledgerHash).toString('hex') });
    await client.close();
    process.exit(0);
})().catch(e => { say({ error: String(e) }); process.exit(1); });
