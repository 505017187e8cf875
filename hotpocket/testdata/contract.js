// Usage: contract.js LIBRARY
// Answers every input with its text and "!", after the members have exchanged a
// message each over the node party line.
const HotPocket = require(process.argv[2]);

new HotPocket.Contract().init(async ctx => {
    if (!ctx.readonly) {
        const members = ctx.unl.count();
        let heard = 0;
        const all = new Promise(ok => ctx.unl.onMessage(() => { if (++heard === members) ok(); }));
        await ctx.unl.send('hello');
        await Promise.race([all, new Promise(ok => setTimeout(ok, 3000).unref())]);
        if (heard < members)
            throw new Error(`heard ${heard} of ${members} members`);
    }
    for (const user of ctx.users.list())
        for (const input of user.inputs)
            await user.send(Buffer.from((await ctx.users.read(input)).toString() + '!'));
}, HotPocket.clientProtocols.bson);
