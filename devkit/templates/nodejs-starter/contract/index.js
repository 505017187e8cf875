// The contract of _projname_: it keeps one text, the same on every node.
//
// The node runs this program once for every ledger and once for every read
// request, in the folder that holds the replicated state. Files written here
// must get the same bytes on every node: no random numbers, no clock but
// ctx.timestamp.
const fs = require("fs");
const HotPocket = require("hotpocket-nodejs-contract");

const FILE = "data.txt";

function answer(ctx, input) {
    const [command] = input.split(" ", 1);
    switch (command) {
        case "get":
            return fs.existsSync(FILE) ? fs.readFileSync(FILE, "utf8") : "nothing is set";
        case "set":
            if (ctx.readonly)
                return "a read request cannot set anything; send this as an input";
            fs.writeFileSync(FILE, input.slice("set ".length));
            return "ok";
        case "stat":
            return ctx.readonly ? "asked in a read request" : `ledger ${ctx.lclSeqNo}, ${ctx.users.count()} users`;
        default:
            return `unknown command ${command}; there are: get, set TEXT, stat`;
    }
}

async function contract(ctx) {
    for (const user of ctx.users.list()) {
        for (const input of user.inputs) {
            const text = (await ctx.users.read(input)).toString();
            // A Buffer is sent as it is; anything else would be sent as JSON.
            await user.send(Buffer.from(answer(ctx, text)));
        }
    }
}

new HotPocket.Contract().init(contract);
