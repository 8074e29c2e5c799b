// The ports of nc_mesh on plain memories: what the link's benches run on. A step takes 20 clocks and logs as many spikes as
// item 15 of core 0's registers says, neuron i of core i modulo the cores; it waits where the log does.
module nc_mesh #(
    parameter int N = 32,
    parameter int A = 32,
    parameter int W = 64,
    parameter int TYPES = 4,
    parameter int GEOMS = 4,
    parameter int X = 1,
    parameter int Y = 1
) (
    input  logic        clk,
    input  logic        rst,
    input  logic        bus_valid,
    input  logic        bus_write,
    input  logic [ 1:0] bus_core,
    input  logic [ 3:0] bus_mem,
    input  logic [15:0] bus_addr,
    input  logic [39:0] bus_wdata,
    output logic        bus_ready,
    output logic        bus_rvalid,
    output logic [39:0] bus_rdata,
    input  logic        step,
    input  logic        restart,
    output logic        busy,
    input  logic        inj_valid,
    input  logic [ 1:0] inj_core,
    input  logic [10:0] inj_axon,
    input  logic [ 3:0] inj_slot,
    output logic        inj_ready,
    output logic        log_valid,
    output logic [ 1:0] log_core,
    output logic [ 9:0] log_neuron,
    input  logic        log_ready,
    output logic [31:0] step_count
);
  localparam int CORES = X * Y;
  localparam int AW = $clog2(W > A ? W : A);

  logic [39:0] items[CORES*16 << AW];
  logic [31:0] burst, logged;
  logic [5:0] wait_clocks;
  logic restarting;
  logic [2:0] delay;  // of a read
  logic [1:0] pause;  // between accesses, so that the link has to wait for bus_ready

  function automatic int at(input logic [1:0] core, input logic [3:0] mem, input logic [15:0] addr);
    return ((int'(core) % CORES * 16 + int'(mem)) << AW) + int'(addr) % (1 << AW);
  endfunction

  assign bus_ready = !busy && pause == 2'd0 && delay == 3'd0;
  assign inj_ready = !busy && pause == 2'd0;
  assign log_valid = busy && !restarting && wait_clocks == 6'd0 && logged != burst;
  assign log_core = 2'(logged % CORES);
  assign log_neuron = 10'(logged % N);

  initial for (int i = 0; i < CORES * 16 << AW; i++) items[i] = '0;

  always_ff @(posedge clk) begin
    bus_rvalid <= 1'b0;
    if (pause != 2'd0) pause <= pause - 2'd1;
    if (delay != 3'd0) begin
      delay <= delay - 3'd1;
      bus_rvalid <= delay == 3'd1;
    end
    if (bus_valid && bus_ready) begin
      pause <= bus_addr[1:0];
      if (bus_write) begin
        items[at(bus_core, bus_mem, bus_addr)] <= bus_wdata;
        if (bus_core == 2'd0 && bus_mem == 4'd14 && bus_addr == 16'd15) burst <= bus_wdata[31:0];
      end else begin
        bus_rdata <= items[at(bus_core, bus_mem, bus_addr)];
        delay <= 3'd1 + {2'd0, bus_addr[0]};
      end
    end
    if (inj_valid && inj_ready) begin
      pause <= inj_axon[1:0];
      items[at(inj_core, 4'd12, 16'(int'(inj_slot) * (A / 32) + int'(inj_axon) / 32))][{1'b0, inj_axon[4:0]}] <= 1'b1;
    end
    if (busy) begin
      if (wait_clocks != 6'd0) wait_clocks <= wait_clocks - 6'd1;
      else if (restarting || logged == burst) begin
        busy <= 1'b0;
        restarting <= 1'b0;
        step_count <= restarting ? 32'd0 : step_count + 32'd1;
      end else if (log_ready) logged <= logged + 32'd1;
    end else if (step || restart) begin
      busy <= 1'b1;
      restarting <= restart;
      wait_clocks <= 6'd20;
      logged <= 32'd0;
    end
    if (rst) begin
      busy <= 1'b0;
      restarting <= 1'b0;
      step_count <= 32'd0;
      burst <= 32'd0;
      pause <= 2'd0;
      delay <= 3'd0;
    end
  end
endmodule
