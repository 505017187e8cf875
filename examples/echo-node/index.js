// Sends every input back to the user it came from.
const HotPocket = require("hotpocket-nodejs-contract");

const contract = new HotPocket.Contract();

contract.init(async (ctx) => {
    for (const user of ctx.users.list()) {
        for (const input of user.inputs) {
            // A Buffer goes out as it is; other values are sent as JSON.
            await user.send(await ctx.users.read(input));
        }
    }
});
