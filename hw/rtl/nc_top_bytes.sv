// The device from bytes to mesh: what a board has behind its UART or another byte stream.
module nc_top_bytes #(
    parameter int N = 1024,
    parameter int A = 2048,
    parameter int W = 65536,
    parameter int TYPES = 16,
    parameter int GEOMS = 16,
    parameter int X = 1,
    parameter int Y = 1,
    parameter int LINE = 2048,  // bytes of each of the two rings
    parameter int LOG = 1024,  // records of the event log
    parameter logic [31:0] CLOCK = 32'd0,  // Hz
    parameter logic [31:0] RATE = 32'd0,  // after reset, see nc_rate; 0: no UART
    parameter int RETURN = 1 << 26,
    parameter logic [63:0] BUILD = 64'd0
) (
    input  logic        clk,
    input  logic        rst,
    input  logic        in_valid,
    input  logic        in_broken,
    input  logic [ 7:0] in_data,
    output logic        in_ready,
    output logic        out_valid,
    output logic [ 7:0] out_data,
    input  logic        out_ready,
    input  logic        out_quiet,  // nothing under way behind out_ready
    output logic [19:0] rate,
    output logic        active  // something is going on: for a light, and for simulators that stop the clock
);
  logic frame, drop, good, bad;
  logic [7:0] index, value, length;
  logic put, close, put_ready, room, sent;
  logic [7:0] put_data;
  logic change, at_work, doubt;
  logic [19:0] wanted;
  logic log_clear, log_discard, log_full, log_nearly, log_ack, log_within;
  logic [15:0] log_written, log_acked, log_index;
  logic [31:0] log_value;
  logic log_valid, log_ready;
  logic [1:0] log_core;
  logic [9:0] log_neuron;
  logic bus_valid, bus_write, bus_ready, bus_rvalid;
  logic [1:0] bus_core;
  logic [3:0] bus_mem;
  logic [15:0] bus_addr;
  logic [39:0] bus_wdata, bus_rdata;
  logic step, restart, busy, inj_valid, inj_ready;
  logic [31:0] step_count;
  logic [1:0] inj_core;
  logic [10:0] inj_axon;
  logic [3:0] inj_slot;
  logic [19:0] log_step;  // of the step that is going on

  // A step that waits for the log waits for the host.
  assign active = at_work || (busy && !(log_valid && !log_ready)) || !in_ready || !sent || doubt;

  always_ff @(posedge clk) if (step) log_step <= step_count[19:0];

  nc_cobs_rx #(
      .DEPTH(LINE)
  ) receive (
      .clk(clk),
      .rst(rst),
      .valid(in_valid),
      .broken(in_broken),
      .data(in_data),
      .ready(in_ready),
      .frame(frame),
      .index(index),
      .value(value),
      .drop(drop),
      .length(length),
      .good(good),
      .bad(bad)
  );

  nc_cobs_tx #(
      .DEPTH(LINE)
  ) send (
      .clk(clk),
      .rst(rst),
      .valid(put),
      .data(put_data),
      .close(close),
      .ready(put_ready),
      .room(room),
      .out_valid(out_valid),
      .out_data(out_data),
      .out_ready(out_ready),
      .idle(sent)
  );

  nc_rate #(
      .FIRST(RATE[19:0]),
      .RETURN(RETURN)
  ) pace (
      .clk(clk),
      .rst(rst),
      .change(change),
      .wanted(wanted),
      .quiet(sent && out_quiet),
      .good(good),
      .bad(bad || in_broken),
      .rate(rate),
      .doubt(doubt)
  );

  nc_log #(
      .DEPTH(LOG)
  ) log (
      .clk(clk),
      .clear(log_clear),
      .discard(log_discard),
      .valid(log_valid),
      .record({log_step, log_core, log_neuron}),
      .ready(log_ready),
      .written(log_written),
      .acked(log_acked),
      .full(log_full),
      .nearly(log_nearly),
      .ack(log_ack),
      .number(log_index),
      .holds(log_within),
      .index(log_index[$clog2(LOG)-1:0]),
      .value(log_value)
  );

  nc_link #(
      .N(N),
      .A(A),
      .W(W),
      .TYPES(TYPES),
      .GEOMS(GEOMS),
      .X(X),
      .Y(Y),
      .CREDIT(LINE),
      .LOG(LOG),
      .CLOCK(CLOCK),
      .RATE(RATE),
      .BUILD(BUILD)
  ) engine (
      .*
  );

  nc_mesh #(
      .N(N),
      .A(A),
      .W(W),
      .TYPES(TYPES),
      .GEOMS(GEOMS),
      .X(X),
      .Y(Y)
  ) mesh (
      .*
  );
endmodule
