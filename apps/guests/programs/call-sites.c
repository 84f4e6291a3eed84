/* The runtime moves the instruction before a `syscall` to another place, so that the call need not trap. It must do there
 * what it did, for whoever comes to it and whoever jumps past it. Each of these seeks in a file: the answer is the offset
 * that it asked for, or 7 from one that is told to leave its last instruction out. */

#define SITE(name, code)                                                                           \
    long name(long file, long offset, long unused, long past);                                     \
    __asm__(".p2align 5, 0xcc\n" #name ":\n" code "\n1: syscall\n ret\n .p2align 5, 0xcc\n")

SITE(number, "xor %edx, %edx\n mov $8, %eax");
SITE(long_number, "xor %edx, %edx\n .byte 0x48, 0xc7, 0xc0, 8, 0, 0, 0");
SITE(zero, "mov $8, %eax\n xor %edx, %edx");
SITE(constant, "mov $8, %eax\n mov $0, %edx");
SITE(long_constant, "mov $8, %eax\n .byte 0x48, 0xc7, 0xc2, 0, 0, 0, 0");
SITE(high_constant, "xor %edx, %edx\n mov $8, %eax\n mov $1, %r10d");
SITE(copy, "mov %rsi, %r8\n xor %edx, %edx\n mov $7, %esi\n mov $8, %eax\n test %rcx, %rcx\n jne 1f\n"
           "mov $8, %eax\n mov %r8, %rsi");
SITE(short_copy, "mov %esi, %r8d\n xor %edx, %edx\n mov $8, %eax\n mov %r8d, %esi");
SITE(from_stack, "mov %rsi, -0x10(%rsp)\n sub $24, %rsp\n call 2f\n add $24, %rsp\n ret\n"
                 "2: xor %edx, %edx\n mov $8, %eax\n mov 0x10(%rsp), %rsi");
SITE(to_stack, "xor %edx, %edx\n sub $24, %rsp\n call 2f\n cmp %rsi, 8(%rsp)\n jne 3f\n add $24, %rsp\n ret\n 3: ud2\n"
               "2: mov $8, %eax\n mov %rsi, 0x10(%rsp)");
SITE(flipped, "xor $0x40, %sil\n xor %edx, %edx\n mov $8, %eax\n xor $0x40, %sil");

typedef long site(long, long, long, long);
static site *const sites[] = {number, long_number, zero,       constant,   long_constant, high_constant,
                              copy,   short_copy,  from_stack, to_stack, flipped};

int main(void)
{
    int file = open("seek", O_RDWR | O_CREAT, 0600);
    CHECK(file >= 0);
    for (int r = 0; r < ROUNDS; r++) {
        long sum = 0;
        for (unsigned i = 0; i < sizeof sites / sizeof *sites; i++)
            for (long offset = 0; offset < 128; offset++) {
                long answer = sites[i](file, offset, 0, 0);
                if (answer != offset)
                    say("site %u: %ld for %ld", i, answer, offset);
                sum += answer;
            }
        CHECK(copy(file, 100, 0, 1) == 7);
        say("round %d: %ld", r, sum);
    }
    say("ok");
    return 0;
}
