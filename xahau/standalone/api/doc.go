// Package api is the server of the embedded ledger: it answers the requests that
// clients of the public network's servers send, over WebSocket and over HTTP as
// JSON-RPC, on one port, and tells subscribers what happens (spec/hosting.md
// section 11, spec/ledger.md section 4). Answers, errors and their numbers are
// those of xahaud; versions 1 and 2 of its API are understood.
//
// It reads the ledger of package standalone and gives it transactions; it keeps
// nothing itself, signs nothing, and opens no port: who calls New puts the Server
// into an http.Server.
package api
