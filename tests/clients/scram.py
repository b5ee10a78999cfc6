"""The client's side of SCRAM, by scramp: scram.py MECHANISM USER PASSWORD. Prints its messages, one a line, and reads the
server's from standard input; at last it checks the server's proof and prints `verified`.
"""

import sys

from scramp import ScramClient

mechanism, user, password = sys.argv[1:]
client = ScramClient([mechanism], user, password)
print(client.get_client_first(), flush=True)
client.set_server_first(sys.stdin.readline().rstrip("\n"))
print(client.get_client_final(), flush=True)
client.set_server_final(sys.stdin.readline().rstrip("\n"))
print("verified", flush=True)
