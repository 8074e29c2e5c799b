// A pseudo terminal with the simulated board behind it: a serial port to whoever opens it.
#pragma once

#include <fcntl.h>
#include <poll.h>
#include <pty.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include <chrono>
#include <cstring>

#include "device.h"

class Server {
 public:
  Server(Device& device, double clock) : device_(device), clock_(clock) {}

  ~Server() {
    if (master_ >= 0) close(master_);
    if (slave_ >= 0) close(slave_);
  }

  bool open(char* name, uint64_t capacity) {
    char path[256];
    if (openpty(&master_, &slave_, path, nullptr, nullptr) != 0 || strlen(path) >= capacity) return false;
    strcpy(name, path);
    struct termios raw;
    tcgetattr(slave_, &raw);
    cfmakeraw(&raw);
    tcsetattr(slave_, TCSANOW, &raw);
    fcntl(master_, F_SETFL, fcntl(master_, F_GETFL) | O_NONBLOCK);
    // The slave stays open here: without anybody at it the master would read an error.
    return true;
  }

  // Serve for about so long; not 0 where the terminal has failed.
  int run(int milliseconds) {
    auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(milliseconds);
    for (;;) {
      if (!take()) return 1;
      if (device_.active()) device_.go(20000);
      give();
      auto left = std::chrono::duration_cast<std::chrono::milliseconds>(end - std::chrono::steady_clock::now()).count();
      if (left <= 0) return 0;
      if (!device_.active()) {
        struct pollfd wait = {master_, short(POLLIN | (device_.from_device.empty() ? 0 : POLLOUT)), 0};
        poll(&wait, 1, int(left));
      }
    }
  }

 private:
  static constexpr size_t kMost = 4096;     // bytes waiting for the device: the rest waits in the terminal
  static constexpr size_t kKept = 1 << 16;  // bytes waiting for the host: a line would have lost them long ago
  Device& device_;
  double clock_;
  int master_ = -1, slave_ = -1;

  bool take() {
    uint8_t data[kMost];
    if (device_.to_device.size() >= kMost) return true;
    ssize_t size = read(master_, data, kMost);
    if (size < 0 && errno != EAGAIN && errno != EINTR) return false;
    if (size > 0) {
      set_rate();
      device_.to_device.insert(device_.to_device.end(), data, data + size);
    }
    return true;
  }

  void give() {
    uint8_t data[kMost];
    auto& out = device_.from_device;
    while (!out.empty()) {
      size_t size = std::min(out.size(), kMost);
      std::copy_n(out.begin(), size, data);
      ssize_t done = write(master_, data, size);
      if (done <= 0) break;
      out.erase(out.begin(), out.begin() + done);
    }
    if (out.size() > kKept) out.clear();
  }

  // The host's rate is what it has set the terminal to; termios2 has it in baud.
  void set_rate() {
    struct {
      unsigned flags[4];
      unsigned char line, cc[19];
      unsigned in, out;
    } now;
    static_assert(sizeof now == 44, "struct termios2 of Linux");
    if (ioctl(slave_, _IOR('T', 0x2A, now), &now) == 0 && now.out > 0) device_.set_bit(clock_ / now.out);
  }
};
