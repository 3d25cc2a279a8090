"""A way to a server that takes its time, and counts connections and how often a client had to wait for the other end."""

import queue
import socket
import threading
import time


class Way:
    """Listens on a port of its own. `round_trip`: seconds there and back, of TCP's own handshake, too."""

    def __init__(self, server, round_trip):
        self.server, self.round_trip = server, round_trip
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        # For each connection: one round trip for TCP's handshake, and one for each time that the server sent after the client.
        self.round_trips = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            server = socket.create_connection(self.server)
            for end in (client, server):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.round_trips.append(1)
            state = {"number": len(self.round_trips) - 1, "asked": False, "lock": threading.Lock()}
            # The kernel has accepted the connection at once; a distant kernel would have taken this long.
            open_at = time.monotonic() + self.round_trip
            for source, target, is_client in ((client, server, True), (server, client, False)):
                waiting = queue.Queue()
                threading.Thread(target=self._hear, args=(source, waiting, state, is_client), daemon=True).start()
                threading.Thread(target=self._say, args=(target, waiting, open_at), daemon=True).start()

    def _hear(self, source, waiting, state, is_client):
        while True:
            try:
                data = source.recv(65536)
            except OSError:
                data = b""
            if data:
                with state["lock"]:
                    if is_client:
                        state["asked"] = True
                    elif state["asked"]:
                        state["asked"] = False
                        self.round_trips[state["number"]] += 1
            waiting.put((time.monotonic() + self.round_trip / 2, data))
            if not data:
                return

    def _say(self, target, waiting, open_at):
        while True:
            due, data = waiting.get()
            # The client's half of the first round trip has passed already.
            time.sleep(max(0, max(due, open_at + self.round_trip / 2) - time.monotonic()))
            try:
                if not data:
                    target.shutdown(socket.SHUT_WR)
                    return
                target.sendall(data)
            except OSError:
                return

    def close(self):
        self.listener.close()
