# Binary trees, after the Computer Language Benchmarks Game: one tree that lives
# as long as the run, and many that are built, walked and dropped. A heap of
# some 40 MB, of which an interval writes what an allocator reuses.
# Deterministic, reads nothing, prints one line at the end.
import sys

rounds = int(sys.argv[1])


def grow(depth):
    if depth == 0:
        return (None, None)
    return (grow(depth - 1), grow(depth - 1))


def count(tree):
    left, right = tree
    if left is None:
        return 1
    return 1 + count(left) + count(right)


lasting = grow(18)
total = 0
for step in range(rounds):
    total += count(grow(6 + step % 5))
print(total, count(lasting))
