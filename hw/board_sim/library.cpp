// The simulated board as a shared library, for nmc_hw.link.simulated.
#include <algorithm>

#include "device.h"
#include "server.h"

double sc_time_stamp() { return 0; }

extern "C" {

Device* nc_open() { return new Device; }

void nc_close(Device* device) { delete device; }

void nc_faults(Device* device, double drop, double flip, double dup, uint64_t seed) {
  device->set_faults(Faults{drop, flip, dup, seed});
}

void nc_bit(Device* device, double clocks_per_bit) { device->set_bit(clocks_per_bit); }

void nc_write(Device* device, const uint8_t* data, uint64_t size) {
  device->to_device.insert(device->to_device.end(), data, data + size);
}

// Lets time pass until a reply has come, there is nothing left to do, or `clocks` are over. Gives what has come.
uint64_t nc_read(Device* device, uint8_t* data, uint64_t capacity, uint64_t clocks) {
  device->go(clocks);
  uint64_t size = std::min<uint64_t>(capacity, device->from_device.size());
  std::copy_n(device->from_device.begin(), size, data);
  device->from_device.erase(device->from_device.begin(), device->from_device.begin() + long(size));
  return size;
}

uint64_t nc_clocks(Device* device) { return device->clocks; }
uint64_t nc_harmed(Device* device) { return device->harmed; }

// The board behind a pseudo terminal, whose name goes to `name`; null where there is none to be had.
Server* nc_serve_open(Device* device, char* name, uint64_t capacity, double clock) {
  auto* server = new Server(*device, clock);
  if (server->open(name, capacity)) return server;
  delete server;
  return nullptr;
}

int nc_serve(Server* server, int milliseconds) { return server->run(milliseconds); }

void nc_serve_close(Server* server) { delete server; }
}
