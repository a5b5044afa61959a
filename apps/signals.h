// Ctrl-C, SIGTERM and SIGHUP (the terminal is closed): the first asks for a stop, the second ends
// the program at once, but for SIGHUP, which may come twice. On Windows Ctrl-Break, a closed window
// and the end of the session are what SIGTERM is elsewhere.
#ifndef LANEWISE_APPS_SIGNALS_H_
#define LANEWISE_APPS_SIGNALS_H_

#include <atomic>

namespace lanewise::apps {

// Installs the handlers. A closed pipe and the limit of a file's size no longer kill the program:
// writing fails instead.
void InstallSignalHandlers();

// Number of the signal that asked for a stop; 0 so far.
const std::atomic<int>& StopSignal();

// What the first signal writes to stderr at once, for work that cannot stop at once; null: nothing.
// Must live as long as the program.
void SayOnStop(const char* text);

// While one lives, the first signal ends the program, as there is nothing to save: texts and
// prompts are read, which may take as long as somebody writes them, a text is evaluated, or kernels
// are measured.
class EndOnSignal {
 public:
  EndOnSignal();
  ~EndOnSignal();
  EndOnSignal(const EndOnSignal&) = delete;
  EndOnSignal& operator=(const EndOnSignal&) = delete;
};

// 130, 143 or 129 after a signal, else 0.
int SignalExitCode();

// Thrown where a signal ends work that leaves nothing behind.
struct Stopped {};

// "Ctrl-C", "SIGTERM" or "SIGHUP".
const char* StopSignalName();

}  // namespace lanewise::apps

#endif  // LANEWISE_APPS_SIGNALS_H_
