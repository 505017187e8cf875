// A client of _projname_. Lines that start with "read " are read requests to
// one node; all others are inputs that every node executes.
//
//     node client.js [wss://localhost:8081]
const readline = require("readline");
const HotPocket = require("hotpocket-js-client");

async function main() {
    const server = process.argv[2] || "wss://localhost:8081";
    const keys = await HotPocket.generateKeys();
    // With the JSON protocol, outputs that look like JSON would be parsed.
    const client = await HotPocket.createClient([server], keys, { protocol: HotPocket.protocols.bson });
    client.on(HotPocket.events.disconnect, () => {
        console.log("disconnected");
        process.exit(1);
    });
    client.on(HotPocket.events.contractOutput, (r) => {
        for (const output of r.outputs)
            console.log(`output in ledger ${r.ledgerSeqNo}: ${output.toString()}`);
    });
    if (!(await client.connect())) {
        console.error(`cannot connect to ${server}; is the cluster running? (evernode dev status)`);
        process.exit(1);
    }
    console.log(`connected to ${server}; commands: set TEXT, get, stat, read get, Ctrl-D to end`);

    const lines = readline.createInterface({ input: process.stdin, output: process.stdout, prompt: "> " });
    lines.prompt();
    const pending = new Set();
    lines.on("line", (line) => {
        const work = execute(client, line.trim()).then(() => lines.prompt());
        pending.add(work);
        work.finally(() => pending.delete(work));
    });
    lines.on("close", async () => {
        await Promise.all(pending);
        // The output of an accepted input comes with the next ledger.
        setTimeout(async () => {
            client.clear(HotPocket.events.disconnect);
            await client.close();
            process.exit(0);
        }, 3000);
    });
}

async function execute(client, line) {
    if (!line)
        return;
    if (line.startsWith("read ")) {
        const content = await client.submitContractReadRequest(line.slice("read ".length));
        console.log(content === null ? "no answer" : content.toString());
        return;
    }
    const input = await client.submitContractInput(line);
    const status = await input.submissionStatus;
    console.log(status.status === "accepted" ? `accepted in ledger ${status.ledgerSeqNo}` : `${status.status}: ${status.reason}`);
}

main();
