# Writes at random places of a heap of some 60 MB, with sorting in between: an
# interpreter without locality, the worst that a commit by pages can meet.
# Deterministic, reads nothing, prints one line at the end.
import sys

rounds = int(sys.argv[1])
state = 12345


def chance():
    global state
    state = (state * 1103515245 + 12345) & 0x7FFFFFFF
    return state


class Node:
    __slots__ = ("key", "left", "right", "load")

    def __init__(self, key):
        self.key, self.left, self.right, self.load = key, None, None, [key]


table = {}
for i in range(200000):
    table[i] = [i, str(i)]
root = Node(1 << 30)
total = 0
for step in range(rounds):
    for _ in range(400):
        entry = table[chance() % 200000]
        entry[0] += step
        total ^= entry[0]
    key, node = chance(), root
    while True:
        if key < node.key:
            if node.left is None:
                node.left = Node(key)
                break
            node = node.left
        else:
            if node.right is None:
                node.right = Node(key)
                break
            node = node.right
    block = sorted(chance() & 0xFFFF for _ in range(300))
    total = (total + block[150]) & 0xFFFFFFFF
print(total)
