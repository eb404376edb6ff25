// A client by `ws` that talks to the echo through the edge; prints a line for each thing that holds
// and ends with 1 at the first that does not.
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { randomBytes } from 'node:crypto'
const [, , folder, port, ca] = process.argv
const WebSocket = createRequire(folder + '/')('ws')

const check = (holds, text) => {
  console.log(`  ${holds ? 'ok ' : 'NOT'}  ${text}`)
  if (!holds) process.exit(1)
}
const once = (socket, event) => new Promise((done, fail) => {
  socket.once(event, (...what) => done(what))
  if (event !== 'error') socket.once('error', fail)
})
const open = async (path, protocols = []) => {
  const socket = new WebSocket(`wss://ws.test:${port}${path}`, protocols, {
    ca: readFileSync(ca), lookup: (_, options, found) => options.all
      ? found(null, [{ address: '127.0.0.1', family: 4 }]) : found(null, '127.0.0.1', 4),
  })
  await once(socket, 'open')
  return socket
}
const echo = async (socket, data) => {
  const answer = once(socket, 'message')
  socket.send(data)
  return (await answer)[0]
}

setTimeout(() => check(false, 'all of it within a minute'), 60_000).unref()
const socket = await open('/echo', ['chat', 'other'])
check(socket.protocol === 'chat', 'a subprotocol is agreed on')
check((await echo(socket, 'hello')).toString() === 'hello', 'a text comes back')
const blob = randomBytes(1 << 20)
check(blob.equals(await echo(socket, blob)), 'a mebibyte comes back')
const pong = once(socket, 'pong')
socket.ping('here?')
check((await pong)[0].toString() === 'here?', 'a ping is answered')
let right = true
const waiting = []
for (let number = 0; number < 1000; number += 1) waiting.push(String(number))
const all = new Promise(done => {
  let next = 0
  socket.on('message', data => {
    right &&= data.toString() === waiting[next]
    next += 1
    if (next === waiting.length) done()
  })
})
for (const text of waiting) socket.send(text)
await all
check(right, 'a thousand texts come back in order')
socket.removeAllListeners('message')
const closed = once(socket, 'close')
socket.send('close 4001')
const [code, reason] = await closed
check(code === 4001 && reason.toString() === 'as told', 'the code and reason of the end come through')
const lost = await open('/echo')
const end = once(lost, 'close')
lost.send('vanish')
check((await end)[0] === 1006, 'a server that vanishes is an end without a code')
const refused = new WebSocket(`wss://plain.test:${port}/`, { ca: readFileSync(ca), lookup: (_, options, found) =>
  options.all ? found(null, [{ address: '127.0.0.1', family: 4 }]) : found(null, '127.0.0.1', 4) })
const [error] = await once(refused, 'error')
check(/Unexpected server response: \d+/.test(error.message), `a site without upgrades: ${error.message}`)
