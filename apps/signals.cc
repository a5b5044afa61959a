#include "apps/signals.h"

#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <initializer_list>

#if defined(_WIN32)
#include <io.h>
#include <windows.h>
#else
#include <unistd.h>
#endif

namespace lanewise::apps {

namespace {

std::atomic<int> stop_signal{0};
static_assert(std::atomic<int>::is_always_lock_free, "signal handlers need it");

std::atomic<const char*> said_on_stop{nullptr};

std::atomic<int> end_at_once{0};  // see EndOnSignal

const char* NameOf(int signal) {
#if defined(SIGHUP)
  if (signal == SIGHUP) return "SIGHUP";
#endif
  return signal == SIGTERM ? "SIGTERM" : "Ctrl-C";
}

// Nothing that allocates or locks may run in a handler.
void Say(const char* text) {
#if defined(_WIN32)
  const auto written = _write(2, text, static_cast<unsigned>(std::strlen(text)));
#else
  const int error = errno;
  const auto written = write(STDERR_FILENO, text, std::strlen(text));
  errno = error;
#endif
  (void)written;
}

[[noreturn]] void End(int signal) {
  Say("\nStopped by ");
  Say(NameOf(signal));
  Say("\n");
  std::_Exit(128 + signal);
}

extern "C" void HandleStop(int signal) {
  int before = 0;
  if (!stop_signal.compare_exchange_strong(before, signal)) {
#if defined(SIGHUP)
    // Of a closed terminal it may come from the system and from the shell: nobody is in a hurry.
    if (signal == SIGHUP) return;
#endif
    std::_Exit(128 + signal);
  }
  if (end_at_once.load() > 0) End(signal);
  if (const char* text = said_on_stop.load()) Say(text);
}

#if defined(_WIN32)
// Runs in a thread of its own.
BOOL WINAPI HandleEvent(DWORD event) {
  HandleStop(event == CTRL_C_EVENT ? SIGINT : SIGTERM);
  // A program whose window was closed has some seconds to end, but no longer than this takes.
  if (event != CTRL_C_EVENT && event != CTRL_BREAK_EVENT) Sleep(INFINITE);
  return TRUE;
}
#endif

}  // namespace

void InstallSignalHandlers() {
#if defined(_WIN32)
  SetConsoleCtrlHandler(HandleEvent, TRUE);
#else
  // Without SA_RESTART: a read that waits for a line returns.
  struct sigaction action = {};
  action.sa_handler = HandleStop;
  sigemptyset(&action.sa_mask);
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) {
    // A program that was started with the signal ignored (nohup, a background job) leaves it so.
    struct sigaction before = {};
    if (sigaction(signal, nullptr, &before) == 0 && before.sa_handler == SIG_IGN) continue;
    sigaction(signal, &action, nullptr);
  }
  action.sa_handler = SIG_IGN;
  sigaction(SIGPIPE, &action, nullptr);
  sigaction(SIGXFSZ, &action, nullptr);
#endif
}

void SayOnStop(const char* text) { said_on_stop = text; }

EndOnSignal::EndOnSignal() {
  ++end_at_once;  // from here on a signal is the handler's
  if (const int signal = stop_signal.load(); signal != 0) End(signal);
}
EndOnSignal::~EndOnSignal() { --end_at_once; }

const std::atomic<int>& StopSignal() { return stop_signal; }

int SignalExitCode() {
  const int signal = stop_signal.load();
  return signal == 0 ? 0 : 128 + signal;
}

const char* StopSignalName() { return NameOf(stop_signal.load()); }

}  // namespace lanewise::apps
