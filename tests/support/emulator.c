/* Preloaded into QEMU's emulators of other CPUs by ./dev aarch64: hides AVX2 from their code
 * generator.
 *
 * An Intel CPU whose 256-bit registers are in use pays 136 ns (measured on a Xeon, family 6 model
 * 207) for a change between AVX and SSE instructions. QEMU computes vectors of 32 bytes with AVX2
 * and scalars with SSE, without clearing the registers between them, and is ten times slower there
 * than with vectors of 16 bytes. No option of QEMU switches AVX2 off, but the kernel can make the
 * CPUID instruction fault (arch_prctl(2), ARCH_CPUID_SET), to be answered here. Where it cannot, or
 * where QEMU is linked statically (Debian 13), nothing changes. */
#define _GNU_SOURCE
#include <cpuid.h>
#include <dlfcn.h>
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

enum { kSetCpuid = 0x1012 };
typedef int (*Sigaction)(int, const struct sigaction*, struct sigaction*);
static int faulting;

static int LetCpuidFault(int on) { return syscall(SYS_arch_prctl, kSetCpuid, !on); }

static void Answer(int signal_number, siginfo_t* info, void* context) {
  greg_t* registers = ((ucontext_t*)context)->uc_mcontext.gregs;
  unsigned eax, ebx, ecx, edx;
  (void)info;
  if (memcmp((void*)registers[REG_RIP], "\x0f\xa2", 2) !=
      0) { /* another fault: again, and unhandled */
    signal(signal_number, SIG_DFL);
    return;
  }
  LetCpuidFault(0);
  __cpuid_count((unsigned)registers[REG_RAX], (unsigned)registers[REG_RCX], eax, ebx, ecx, edx);
  LetCpuidFault(1);
  if ((unsigned)registers[REG_RAX] == 7 && (unsigned)registers[REG_RCX] == 0)
    ebx &= ~(unsigned)(bit_AVX2 | bit_AVX512F | bit_AVX512DQ | bit_AVX512BW | bit_AVX512VL);
  registers[REG_RAX] = eax;
  registers[REG_RBX] = ebx;
  registers[REG_RCX] = ecx;
  registers[REG_RDX] = edx;
  registers[REG_RIP] += 2;
}

static Sigaction Next(void) { return (Sigaction)dlsym(RTLD_NEXT, "sigaction"); }

__attribute__((constructor)) static void Start(void) {
  struct sigaction answer = {0};
  if (strncmp(program_invocation_short_name, "qemu-", 5) != 0) return;
  answer.sa_sigaction = Answer;
  answer.sa_flags = SA_SIGINFO;
  if (Next()(SIGSEGV, &answer, 0) == 0) faulting = LetCpuidFault(1) == 0;
}

/* The emulator asks for the CPU's features before it takes over the signals. */
int sigaction(int signal_number, const struct sigaction* action, struct sigaction* old) {
  if (faulting && signal_number == SIGSEGV && action != 0) {
    faulting = 0;
    LetCpuidFault(0);
  }
  return Next()(signal_number, action, old);
}
