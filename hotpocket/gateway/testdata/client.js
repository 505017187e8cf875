// Talks to a node with the unmodified client library and prints what it saw as
// one line of JSON. Arguments: the folder with node_modules, the server's
// address, the protocol, and either "any" or the trusted keys with commas.
const path = require("path");
const [modules, server, protocol, trusted] = process.argv.slice(2);
const HotPocket = require(path.join(modules, "node_modules", "hotpocket-js-client"));

const text = (v) => (v instanceof Uint8Array ? Buffer.from(v).toString("utf8") : v);
const hex = (v) => (typeof v === "string" ? v : Buffer.from(v).toString("hex"));

async function main() {
    HotPocket.setLogLevel(2);
    const keys = await HotPocket.generateKeys("ed" + "2a".repeat(32) + "197f6b23e16c8532c6abc838facd5ea789be0c76b2920334039bfa8b3d368d61");
    const options = { protocol, contractId: "3c349abe-4d70-4f50-9fa6-018f1f2530ab", contractVersion: "1.0" };
    if (trusted !== "any") options.trustedServerKeys = trusted.split(",");
    const client = await HotPocket.createClient([server], keys, options);

    const seen = { outputs: [], ledgers: [], unl: [] };
    let enough;
    const allThere = new Promise((resolve) => (enough = resolve));
    const check = () => seen.outputs.length >= 2 && seen.ledgers.length >= 1 && seen.unl.length >= 1 && enough();
    client.on(HotPocket.events.contractOutput, (r) => {
        seen.outputs.push({ ledger: r.ledgerSeqNo, hash: hex(r.outputHash), outputs: r.outputs.map(text) });
        check();
    });
    client.on(HotPocket.events.ledgerEvent, (e) => { seen.ledgers.push({ event: e.event, seq: e.ledger && e.ledger.seqNo, hash: e.ledger && hex(e.ledger.hash) }); check(); });
    client.on(HotPocket.events.unlChange, (u) => { seen.unl.push(u.map(hex)); check(); });

    seen.connected = await client.connect();
    if (!seen.connected) {
        console.log(JSON.stringify(seen));
        process.exit(0);
    }
    await client.subscribe(HotPocket.notificationChannels.ledgerEvent);
    await client.subscribe(HotPocket.notificationChannels.unlChange);

    seen.lcl = await client.getLcl();
    seen.lcl.ledgerHash = hex(seen.lcl.ledgerHash);
    const stat = await client.getStatus();
    stat.ledgerHash = hex(stat.ledgerHash);
    stat.currentUnl = stat.currentUnl.map(hex);
    seen.stat = stat;
    seen.read = text(await client.submitContractReadRequest("what?"));
    const first = await client.submitContractInput("hello \"wörld\"");
    seen.first = { hash: hex(first.hash), status: await first.submissionStatus };
    seen.first.status.ledgerHash = hex(seen.first.status.ledgerHash);
    const second = await client.submitContractInput("again");
    seen.second = await second.submissionStatus;
    seen.second.ledgerHash = hex(seen.second.ledgerHash);
    const refused = await client.submitContractInput("refuse me");
    seen.refused = await refused.submissionStatus;
    await allThere;
    const ledger = await client.getLedgerBySeqNo(9, true, true);
    seen.ledger = {
        seq: ledger.seqNo, timestamp: ledger.timestamp, hash: hex(ledger.hash), prev: hex(ledger.prevHash), state: hex(ledger.stateHash), config: hex(ledger.configHash),
        user: hex(ledger.userHash), input: hex(ledger.inputHash), output: hex(ledger.outputHash),
        inputs: ledger.inputs.map((i) => [hex(i.pubkey), hex(i.hash), i.nonce, hex(i.blob)]),
        outputs: ledger.outputs.map((o) => [hex(o.pubkey), hex(o.hash), ...o.blobs.map(hex)]),
    };
    seen.missing = await client.getLedgerBySeqNo(1234, false, false);
    await client.close();
    console.log(JSON.stringify(seen));
}
main().catch((e) => { console.error(e); process.exit(1); });
