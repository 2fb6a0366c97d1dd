"""Many producers in one process: DEALER sockets of ZMTP 3.0 by hand, one descriptor each, in one loop.

libzmq takes several descriptors and a pipe for each socket; this is enough for ten thousand.
"""
import os
import selectors
import socket
import struct

GREETING = (b"\xff" + bytes(8) + b"\x7f" + b"\x03\x00" + b"NULL".ljust(20, b"\0") + b"\0" + bytes(31))
READY_BODY = b"\x05READY\x0bSocket-Type\x00\x00\x00\x06DEALER\x08Identity\x00\x00\x00\x00"
READY = b"\x04" + bytes([len(READY_BODY)]) + READY_BODY
assert len(GREETING) == 64


def frame(message):
    if len(message) < 256:
        return b"\x00" + bytes([len(message)]) + message
    return b"\x02" + struct.pack(">Q", len(message)) + message


class Peer:
    """A connection; `on_message(peer, message)` for what comes, `on_end(peer)` when it is cut."""

    def __init__(self, loop, address, on_message, on_end):
        self.loop, self.on_message, self.on_end = loop, on_message, on_end
        self.out, self.held = bytearray(GREETING + READY), bytearray()
        self.early = bytearray()  # what waits for its READY: libzmq takes nothing before
        self.need_greeting, self.is_ready = True, False
        self.socket = socket.socket()
        self.socket.setblocking(False)
        self.socket.connect_ex(address)
        loop.selector.register(self.socket, selectors.EVENT_READ | selectors.EVENT_WRITE, self)

    def send(self, message):
        if not self.is_ready:
            self.early += frame(message)
            return
        self.out += frame(message)
        self.loop.selector.modify(self.socket, selectors.EVENT_READ | selectors.EVENT_WRITE, self)

    def close(self):
        if self.socket.fileno() >= 0:
            self.loop.selector.unregister(self.socket)
            self.socket.close()

    def _turn(self, mask):
        if mask & selectors.EVENT_WRITE:
            if self.out:
                sent = self.socket.send(memoryview(self.out)[:1 << 18])
                del self.out[:sent]
            if not self.out:
                self.loop.selector.modify(self.socket, selectors.EVENT_READ, self)
        if mask & selectors.EVENT_READ:
            piece = self.socket.recv(1 << 16)
            if not piece:
                raise ConnectionError("the end")
            self.held += piece
            self._divide()

    def _divide(self):
        if self.need_greeting:
            if len(self.held) < 64:
                return
            del self.held[:64]
            self.need_greeting = False
        while len(self.held) >= 2:
            flags = self.held[0]
            begin, size = (9, struct.unpack_from(">Q", self.held, 1)[0]) if flags & 2 and len(self.held) >= 9 else (2, self.held[1])
            if (flags & 2 and len(self.held) < 9) or len(self.held) < begin + size:
                return
            message = bytes(self.held[begin:begin + size])
            del self.held[:begin + size]
            if not flags & 4:
                self.on_message(self, message)
            elif not self.is_ready:  # a command, its READY
                self.is_ready = True
                self.out += self.early
                self.early.clear()
                self.loop.selector.modify(self.socket, selectors.EVENT_READ | selectors.EVENT_WRITE, self)


class Loop:
    def __init__(self):
        self.selector = selectors.DefaultSelector()

    def turn(self, timeout):
        for key, mask in self.selector.select(timeout):
            peer = key.data
            if peer.socket.fileno() < 0:
                continue
            try:
                peer._turn(mask)
            except BlockingIOError:
                pass
            except OSError:
                peer.close()
                peer.on_end(peer)

    def close(self):
        for key in list(self.selector.get_map().values()):
            key.data.close()
        self.selector.close()


def new_peer_id():
    return os.urandom(16)
