"""A port that is ours although nothing listens there."""

import socket


def reserve_port() -> socket.socket:
    """A socket bound to a free port of the loopback interface, to be held as long as the port is to be ours.

    It never listens: connections are refused, and a server that sets SO_REUSEADDR may listen there all the same, while
    the kernel hands the port to nobody who asks for any free one.
    """
    reservation = socket.socket()
    reservation.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    reservation.bind(("127.0.0.1", 0))
    return reservation
