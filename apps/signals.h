// Ctrl-C and SIGTERM: the first asks for a stop, the second ends the program at once. On Windows
// Ctrl-Break, a closed window and the end of the session are what SIGTERM is elsewhere.
#ifndef LANEWISE_APPS_SIGNALS_H_
#define LANEWISE_APPS_SIGNALS_H_

#include <atomic>

namespace lanewise::apps {

// Installs the handlers. A closed pipe no longer kills the program: writing to it fails instead.
void InstallSignalHandlers();

// Number of the signal that asked for a stop; 0 so far.
const std::atomic<int>& StopSignal();

// What the first signal writes to stderr at once, for work that cannot stop at once; null: nothing.
// Must live as long as the program.
void SayOnStop(const char* text);

// 130 or 143 after a signal, else 0.
int SignalExitCode();

// Thrown where a signal ends work that leaves nothing behind.
struct Stopped {};

// "Ctrl-C" or "SIGTERM".
const char* StopSignalName();

}  // namespace lanewise::apps

#endif  // LANEWISE_APPS_SIGNALS_H_
