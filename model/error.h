// What can go wrong outside the program, as exceptions. Each message says what, where, and how to
// go on; apps/ catches them once and turns them into an exit code.
#ifndef LANEWISE_MODEL_ERROR_H_
#define LANEWISE_MODEL_ERROR_H_

#include <stdexcept>
#include <string>

namespace lanewise::model {

class Error : public std::runtime_error {
 public:
  int exit_code() const { return exit_code_; }

 protected:
  Error(int exit_code, const std::string& message)
      : std::runtime_error(message), exit_code_(exit_code) {}

 private:
  int exit_code_;
};

// Wrong options or arguments.
class UsageError : public Error {
 public:
  explicit UsageError(const std::string& message) : Error(2, message) {}
};

// Data or a file that cannot be what it should be: foreign, truncated, corrupt, empty.
class InputError : public Error {
 public:
  explicit InputError(const std::string& message) : Error(3, message) {}
};

// The operating system refused. error_number() is the errno, 0 where there is none.
class IoError : public Error {
 public:
  explicit IoError(const std::string& message, int error_number = 0)
      : Error(4, message), error_number_(error_number) {}
  int error_number() const { return error_number_; }

 private:
  int error_number_;
};

// The training's loss or gradients stayed NaN or infinite.
class DivergedError : public Error {
 public:
  explicit DivergedError(const std::string& message) : Error(5, message) {}
};

// More memory planned than the machine has.
class OutOfMemory : public Error {
 public:
  explicit OutOfMemory(const std::string& message) : Error(6, message) {}
};

// Another process works in the folder.
class LockedError : public Error {
 public:
  explicit LockedError(const std::string& message) : Error(7, message) {}
};

}  // namespace lanewise::model

#endif  // LANEWISE_MODEL_ERROR_H_
