// Where spikes go: the log, the own pending memory, other cores. The queue holds spikes of U until all have been taken.
module nc_send #(
    parameter int NX = 10,
    parameter int CORES = 1
) (
    input  logic          clk,
    input  logic          rst,
    input  logic [   1:0] self,          // the own core's number
    input  logic          spike,
    input  logic [NX-1:0] spike_neuron,
    input  logic [  15:0] spike_route,
    output logic          has_room,      // for all neurons that are in the pipeline of U
    output logic          working,
    output logic          log_valid,
    output logic [   9:0] log_neuron,
    input  logic          log_ready,
    output logic          local_valid,
    input  logic          local_ready,
    output logic          mesh_valid,
    output logic [   1:0] mesh_core,
    input  logic          mesh_ready,
    output logic [  10:0] axon           // of the own core, or of `mesh_core`
);
  localparam logic [3:0] PRESENT = 4'((1 << CORES) - 1);

  logic [3:0] spike_cores, head_cores, own, far, far_left;
  logic head_log, empty, load, local_left, log_left;
  logic [NX-1:0] head_neuron, neuron;
  logic [10:0] head_axon;
  logic [5:0] count;

  assign own = 4'd1 << self;
  assign spike_cores = spike_route[14:11] & PRESENT;
  nc_fifo #(
      .WIDTH(NX + 16),
      .DEPTH(32)
  ) spikes (
      .clk,
      .rst,
      .push (spike && (spike_route[15] || spike_cores != 4'd0)),
      .wdata({spike_route[15], spike_cores, spike_route[10:0], spike_neuron}),
      .pop  (load),
      .rdata({head_log, head_cores, head_axon, head_neuron}),
      .empty,
      // verilator lint_off PINCONNECTEMPTY
      .full (),
      // verilator lint_on PINCONNECTEMPTY
      .count
  );

  assign log_neuron = {{(10 - NX) {1'b0}}, neuron};
  assign mesh_valid = far != 4'd0;
  assign mesh_core  = far[0] ? 2'd0 : far[1] ? 2'd1 : far[2] ? 2'd2 : 2'd3;
  assign log_left   = log_valid && !log_ready;
  assign local_left = local_valid && !local_ready;
  assign far_left   = mesh_ready ? far & (far - 4'd1) : far;
  assign load       = !empty && !log_left && !local_left && far_left == 4'd0;
  assign working    = !empty || log_valid || local_valid || mesh_valid;

  always_ff @(posedge clk) begin
    has_room <= count < 6'd15;
    {log_valid, local_valid, far} <= {log_left, local_left, far_left};
    if (load) begin
      {neuron, axon} <= {head_neuron, head_axon};
      {log_valid, local_valid, far} <= {head_log, (head_cores & own) != 4'd0, head_cores & ~own};
    end
    if (rst) begin
      {log_valid, local_valid, far} <= '0;
      has_room <= 1'b1;
    end
  end
endmodule
