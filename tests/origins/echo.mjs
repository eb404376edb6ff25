// An echo over WebSocket, by `ws`: says its port, sends back what it gets, closes as it is told to.
import { createRequire } from 'node:module'
const { WebSocketServer } = createRequire(process.argv[2] + '/')('ws')

const server = new WebSocketServer({ host: '127.0.0.1', port: 0, handleProtocols: set => [...set][0] })
server.on('listening', () => console.log(server.address().port))
server.on('connection', socket => {
  socket.on('message', (data, binary) => {
    const text = binary ? '' : data.toString()
    if (text.startsWith('close ')) socket.close(Number(text.slice(6)), 'as told')
    else if (text === 'vanish') socket.terminate()
    else socket.send(data, { binary })
  })
})
