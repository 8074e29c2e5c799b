// A simulated board: the RTL, the line to it, and what goes wrong on that line.
//
// With TOP_nc_top the line is the two pins of nc_top, driven and sampled at the host's baud rate; else it is the byte ports
// of nc_top_bytes. Time passes only while there is something to do.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>

#ifdef TOP_nc_top
#include "Vnc_top.h"
using Model = Vnc_top;
#else
#include "Vnc_top_bytes.h"
using Model = Vnc_top_bytes;
#endif

// Chances per byte, in both directions.
struct Faults {
  double drop = 0, flip = 0, dup = 0;
  uint64_t seed = 1;
};

class Device {
 public:
  std::deque<uint8_t> to_device, from_device;
  uint64_t clocks = 0;  // since reset
  uint64_t harmed = 0;  // bytes
  uint64_t frames = 0;  // zeros that the device has sent

  Device() : model_(new Model) {
    model_->rst = 1;
    for (int i = 0; i < 4; i++) clock();
    model_->rst = 0;
    for (int i = 0; i < 4; i++) clock();
    clocks = 0;
  }

  ~Device() { model_->final(); }

  void set_faults(const Faults& faults) {
    faults_ = faults;
    random_ = faults.seed * 0x9e3779b97f4a7c15ull + 0x1234567;
  }

  // Clocks of the device per bit of the host. Byte streams have no rate.
  void set_bit(double clocks_per_bit) { bit_ = clocks_per_bit; }

  // Signals are on their way for some clocks behind what can be seen.
  bool active() const { return at_work() || clocks - last_ < 32; }

  void clock() {
    line();
    model_->clk = 0;
    model_->eval();
    model_->clk = 1;
    model_->eval();
    clocks++;
    if (at_work()) last_ = clocks;
  }

  // Until a frame has come from the device, it has nothing to do, or `most` clocks are over.
  void go(uint64_t most) {
    uint64_t end = clocks + most, before = frames;
    while (frames == before && clocks < end && active()) clock();
  }

 private:
  std::unique_ptr<Model> model_;
  Faults faults_;
  uint64_t random_ = 1;
  uint64_t last_ = 0;  // clock in which there was something to do
  double bit_ = 16;
  int sending_ = 0, receiving_ = 0;  // bits to come
  double send_at_ = 0, receive_at_ = 0;
  uint16_t sent_ = 0, received_ = 0;

  bool at_work() const { return !to_device.empty() || sending_ > 0 || receiving_ > 0 || model_->active; }

  double chance() {  // xorshift64
    random_ ^= random_ << 13;
    random_ ^= random_ >> 7;
    random_ ^= random_ << 17;
    return double(random_ >> 11) / 9007199254740992.0;
  }

  // How often a byte arrives, and as what.
  int harm(uint8_t& byte) {
    if (faults_.drop == 0 && faults_.flip == 0 && faults_.dup == 0) return 1;
    double x = chance();
    if (x >= faults_.drop + faults_.flip + faults_.dup) return 1;
    harmed++;
    if (x < faults_.drop) return 0;
    if (x < faults_.drop + faults_.flip) {
      byte ^= 1u << int(chance() * 8);
      return 1;
    }
    return 2;
  }

  void arrive(uint8_t byte) {
    frames += byte == 0;
    for (int n = harm(byte); n > 0; n--) from_device.push_back(byte);
  }

  // The next byte for the device, harmed already; false where there is none.
  bool next(uint8_t& byte) {
    while (!to_device.empty() && repeats_ < 0) {
      held_ = to_device.front();
      repeats_ = harm(held_);
      if (repeats_ == 0) {
        to_device.pop_front();
        repeats_ = -1;
      }
    }
    byte = held_;
    return !to_device.empty();
  }

  void taken() {
    if (--repeats_ > 0) return;
    to_device.pop_front();
    repeats_ = -1;
  }

  uint8_t held_ = 0;
  int repeats_ = -1;

#ifdef TOP_nc_top
  void line() {
    double now = double(clocks);
    uint8_t byte;
    bool ended = false;  // a byte, in this clock: the next follows without a pause
    if (sending_ > 0 && now >= send_at_) {
      sent_ >>= 1;
      send_at_ += bit_;
      ended = --sending_ == 0;
    }
    if (sending_ == 0 && next(byte)) {
      sent_ = uint16_t(byte << 1 | 0x200);
      if (!ended) send_at_ = now + bit_;
      sending_ = 10;
      taken();
    }
    model_->rx = sending_ > 0 ? sent_ & 1 : 1;

    int tx = model_->tx;
    if (receiving_ == 0) {
      if (!tx) {
        receiving_ = 10;
        receive_at_ = now + bit_ / 2;
      }
    } else if (now >= receive_at_) {
      received_ = uint16_t(received_ >> 1 | tx << 9);
      receive_at_ += bit_;
      if (--receiving_ == 9 && tx) receiving_ = 0;  // a glitch
      else if (receiving_ == 0 && tx) arrive(uint8_t(received_ >> 1));
    }
  }
#else
  void line() {
    uint8_t byte = 0;
    model_->in_valid = next(byte);
    model_->in_data = byte;
    model_->in_broken = 0;
    model_->out_ready = 1;
    model_->out_quiet = 1;
    if (model_->in_valid && model_->in_ready && !model_->rst) taken();
    if (model_->out_valid && !model_->rst) arrive(model_->out_data);
  }
#endif
};
