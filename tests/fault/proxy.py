"""TCP proxies that cut, stall and half-close what goes through them. One thread serves them all."""
import collections
import os
import selectors
import socket
import struct
import threading
import time

PIECE = 65536
HELD_MAX = 4 * PIECE  # bytes that wait in one direction; then the sender waits


class Pipe:
    """One direction of a connection."""

    def __init__(self, source, sink):
        self.source, self.sink = source, sink
        self.held = bytearray()
        self.is_ended = False   # the source has said all
        self.cut_after = None   # so many bytes go through, then the connection is cut


class Proxy:
    def __init__(self, hub):
        self.hub = hub
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.listener.setblocking(False)
        self.endpoint = "tcp://127.0.0.1:%d" % self.listener.getsockname()[1]
        self.pairs = set()
        self.stalled_until = self.refuses_until = 0.0


class Pair:
    def __init__(self, proxy, client, server):
        self.proxy = proxy
        self.ends = (client, server)
        self.up, self.down = Pipe(client, server), Pipe(server, client)


class Hub:
    """`target` is where all proxies lead to: (host, port); it may be changed at any time. The
    functions may be called by any thread and come back when it is done."""

    def __init__(self):
        self.target = None
        self.counts = collections.Counter()
        self.selector = selectors.DefaultSelector()
        self.orders = collections.deque()
        self.wake_in, self.wake_out = os.pipe()
        os.set_blocking(self.wake_in, False)
        self.selector.register(self.wake_in, selectors.EVENT_READ, "wake")
        self.pairs = {}         # socket: Pair
        self.proxies = []
        self.is_ending = False
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def new_proxy(self):
        return self._order(self._new)

    def cut(self, proxy):
        """All its connections end with a reset."""
        self._order(self._cut_all, proxy, "cut")

    def cut_after(self, proxy, count):
        """The same after so many bytes: in the midst of a message."""
        self._order(self._cut_after, proxy, count)

    def half_close(self, proxy, up):
        """One direction ends in order; the other goes on for as long as both sides like."""
        self._order(self._half_close, proxy, up)

    def stall(self, proxy, seconds):
        """Nothing moves for so long, and nothing is lost."""
        self._order(self._stall, proxy, seconds)

    def refuse(self, proxy, seconds):
        """Cuts, and takes no connections for so long."""
        self._order(self._refuse, proxy, seconds)

    def heal(self):
        for proxy in self.proxies:
            self._order(self._stall, proxy, 0)
            self._order(self._refuse_until, proxy, 0)

    def close(self):
        self.is_ending = True
        os.write(self.wake_out, b".")
        self.thread.join()

    # ---- all below runs in the thread ----

    def _order(self, function, *args):
        done, answer = threading.Event(), []
        self.orders.append((function, args, done, answer))
        os.write(self.wake_out, b".")
        done.wait()
        return answer[0]

    def _new(self):
        proxy = Proxy(self)
        self.selector.register(proxy.listener, selectors.EVENT_READ, proxy)
        self.proxies.append(proxy)
        return proxy

    def _cut_after(self, proxy, count):
        for pair in proxy.pairs:
            pair.up.cut_after = pair.down.cut_after = count
        self.counts["cut in the midst"] += len(proxy.pairs)

    def _half_close(self, proxy, up):
        for pair in list(proxy.pairs):
            pipe = pair.up if up else pair.down
            pipe.is_ended = True
            self.counts["half closed"] += 1
            self._move(pair)

    def _stall(self, proxy, seconds):
        proxy.stalled_until = time.monotonic() + seconds
        self.counts["stalled"] += seconds > 0 and len(proxy.pairs)

    def _refuse(self, proxy, seconds):
        self._cut_all(proxy, "refused")
        self._refuse_until(proxy, time.monotonic() + seconds)

    def _refuse_until(self, proxy, until):
        proxy.refuses_until = until

    def _cut_all(self, proxy, why):
        for pair in list(proxy.pairs):
            self._cut(pair, why)

    def _cut(self, pair, why):
        self.counts[why] += 1
        for end in pair.ends:
            self.pairs.pop(end, None)
            if end.fileno() in self.selector.get_map():
                self.selector.unregister(end)
            try:
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            except OSError:
                pass
            end.close()
        pair.proxy.pairs.discard(pair)

    def _serve(self):
        while not self.is_ending:
            for key, mask in self.selector.select(0.05):
                if key.data == "wake":
                    os.read(self.wake_in, 4096)
                elif isinstance(key.data, Proxy):
                    self._accept(key.data)
                elif key.fileobj in self.pairs:
                    self._move(self.pairs[key.fileobj])
            while self.orders:
                function, args, done, answer = self.orders.popleft()
                answer.append(function(*args))
                done.set()
            for proxy in self.proxies:
                if 0 < proxy.stalled_until <= time.monotonic():
                    proxy.stalled_until = 0
                    for pair in list(proxy.pairs):
                        self._move(pair)
        for pair in set(self.pairs.values()):
            self._cut(pair, "ended")
        for proxy in self.proxies:
            proxy.listener.close()
        self.selector.close()

    def _accept(self, proxy):
        try:
            client, _ = proxy.listener.accept()
        except OSError:
            return
        try:
            if self.target is None or time.monotonic() < proxy.refuses_until:
                raise OSError("refused")
            server = socket.create_connection(self.target, timeout=1)
        except OSError:
            client.close()
            return
        pair = Pair(proxy, client, server)
        proxy.pairs.add(pair)
        for end in pair.ends:
            end.setblocking(False)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.pairs[end] = pair
            self.selector.register(end, selectors.EVENT_READ, pair)

    def _move(self, pair):
        """Takes what is there, hands on what can be, and says what it wants to hear of."""
        try:
            is_stalled = time.monotonic() < pair.proxy.stalled_until
            for pipe in (pair.up, pair.down):
                if not is_stalled:
                    self._move_pipe(pipe)
            if pair.up.is_ended and pair.down.is_ended:
                return self._cut(pair, "ended")
            for end, out, back in ((pair.ends[0], pair.up, pair.down), (pair.ends[1], pair.down, pair.up)):
                wants = 0
                if not is_stalled and not out.is_ended and len(out.held) < HELD_MAX:
                    wants |= selectors.EVENT_READ
                if not is_stalled and back.held:
                    wants |= selectors.EVENT_WRITE
                self._want(end, pair, wants)
        except OSError:
            self._cut(pair, "ended")
        return None

    def _want(self, end, pair, wants):
        is_there = end.fileno() in self.selector.get_map()
        if wants and is_there:
            self.selector.modify(end, wants, pair)
        elif wants:
            self.selector.register(end, wants, pair)
        elif is_there:
            self.selector.unregister(end)

    def _move_pipe(self, pipe):
        if not pipe.is_ended and len(pipe.held) < HELD_MAX:
            try:
                piece = pipe.source.recv(PIECE)
                pipe.held += piece
                pipe.is_ended = not piece
            except BlockingIOError:
                pass
        if pipe.held:
            n = len(pipe.held) if pipe.cut_after is None else min(len(pipe.held), pipe.cut_after)
            try:
                sent = pipe.sink.send(pipe.held[:n])
            except BlockingIOError:
                return
            del pipe.held[:sent]
            if pipe.cut_after is not None:
                pipe.cut_after -= sent
                if pipe.cut_after <= 0:
                    raise OSError("cut")
        if pipe.is_ended and not pipe.held:
            pipe.sink.shutdown(socket.SHUT_WR)
