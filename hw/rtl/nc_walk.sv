// Walks the rows of the axons and issues one synapse a clock in D, four words a clock in L. While a row is issued the
// next descriptor is fetched, so rows of three synapses and more follow each other without a gap.
module nc_walk #(
    parameter int A = 2048,
    parameter int AX = $clog2(A)
) (
    input  logic          clk,
    input  logic          rst,
    input  logic          learning,     // phase L: rows with a rule only, no gates, no delays
    input  logic          plastic,      // the register `learn`
    output logic          idle,
    // axons
    input  logic          axon_valid,
    input  logic [AX-1:0] axon,
    input  logic [   7:0] pre,
    output logic          axon_pop,
    // GATE: what that neuron did, three clocks after
    output logic [   9:0] gate_neuron,
    input  logic          gate_fired,
    // DELAY
    output logic          delay_valid,
    output logic [AX-1:0] delay_axon,
    output logic [   3:0] delay_steps,
    input  logic          delay_ready,
    // CONV: items of a geometry, one clock after
    output logic [   3:0] geom,
    output logic [   1:0] geom_part,
    input  logic [  27:0] geom_item,
    // an operation of the synapse pipeline
    output logic          op_valid,
    output logic          op_header,
    output logic [   1:0] op_kind,
    output logic          op_half,
    output logic [  15:0] op_addr,
    output logic [   9:0] op_target,
    output logic [   7:0] op_weight,
    output logic [   2:0] op_shift,
    output logic [   2:0] op_rule,
    output logic [   7:0] op_pre,
    output logic [   3:0] op_lanes,
    // host
    input  logic          bus_active,
    input  logic [AX-1:0] bus_addr,
    input  logic          rows_we,
    input  logic [  35:0] bus_wdata,
    output logic [  35:0] rows_rdata
);
  localparam logic [2:0] FMT_SPARSE = 3'd1, FMT_DENSE = 3'd2, FMT_CONV = 3'd3, FMT_ONE = 3'd4, FMT_GATE = 3'd5, FMT_DELAY = 3'd6;
  localparam logic [1:0] SPARSE = 2'd0, DENSE = 2'd1, CONV = 2'd2, ONE = 2'd3;

  // --- descriptors: two clocks from the address to `row`
  typedef enum logic [2:0] {REST, FETCH, DECODE, TAPS, GATE1, GATE2, GATE3} state_t;
  state_t state;
  logic [AX-1:0] row_at, row_next;
  logic [35:0] read, row;
  logic [7:0] axon_pre;
  logic [2:0] fmt, rule;
  logic more, run, load, advance, stop, fetch;
  logic learns, delays, holds;  // known as soon as `row`: it is issued; goes to the pending memory; takes longer than a clock

  assign fmt = row[2:0];
  assign rule = fmt == FMT_SPARSE || fmt == FMT_DENSE ? row[9:7] : 3'd0;
  assign more = row[3] && row_at != {AX{1'b1}} && !stop;
  assign rows_rdata = row;

  logic host, host_we;
  logic [AX-1:0] host_addr;
  logic [35:0] host_wdata;
  nc_near #(.WIDTH(AX + 38)) bus (
      .clk, .d({bus_active, rows_we, bus_addr, bus_wdata}), .q({host, host_we, host_addr, host_wdata})
  );
  nc_ram #(
      .WIDTH(36),
      .DEPTH(A)
  ) rows (
      .clk,
      .we   (host_we),
      .waddr(host_addr),
      .wdata(host_wdata),
      .raddr(host ? host_addr : row_next),
      .rdata(read)
  );

  // --- convolution
  logic tap_start, tap_finished, tap_valid, tap_ready;
  logic [15:0] tap_addr;
  logic [9:0] tap_target, tap_count, tap_step;
  nc_taps taps (
      .clk,
      .rst,
      .start    (tap_start),
      .y        (row[19:14]),
      .x        (row[25:20]),
      .base     (row[35:26]),
      .finished (tap_finished),
      .valid    (tap_valid),
      .ready    (tap_ready),
      .addr     (tap_addr),
      .target   (tap_target),
      .count    (tap_count),
      .step     (tap_step),
      .part     (geom_part),
      .item     (geom_item)
  );

  // --- what becomes of a descriptor
  assign run = state == DECODE && learns;
  assign load = run || tap_valid;  // something waits to be issued
  assign tap_start = state == DECODE && holds && fmt == FMT_CONV;
  assign delay_valid = state == DECODE && delays;
  assign delay_axon = row[10+AX-1:10];
  assign delay_steps = row[24:21];
  assign gate_neuron = row[19:10];
  assign geom = row[13:10];
  assign stop = state == GATE3 && !gate_fired;

  logic free;  // the issuing stage takes a run in this clock
  always_comb begin
    case (state)
      REST:    advance = 1'b1;
      DECODE:
      if (learns) advance = free;
      else if (delays) advance = delay_ready;
      else advance = !holds;
      TAPS:    advance = tap_finished;
      GATE3:   advance = 1'b1;
      default: advance = 1'b0;
    endcase
  end
  assign fetch = advance && state != REST && more;
  assign axon_pop = advance && !fetch && axon_valid;
  assign row_next = fetch ? row_at + 1'b1 : axon;
  assign tap_ready = free;

  always_ff @(posedge clk) begin
    if (state != TAPS && state != GATE1 && state != GATE2 && (state != DECODE || advance)) begin
      row <= read;
      if (learning) learns <= (read[2:0] == FMT_SPARSE || read[2:0] == FMT_DENSE) && read[9:7] != 3'd0;
      else learns <= read[2:0] == FMT_SPARSE || read[2:0] == FMT_DENSE || read[2:0] == FMT_ONE;
      delays <= !learning && read[2:0] == FMT_DELAY && read[24:21] != 4'd0;
      holds  <= !learning && (read[2:0] == FMT_CONV || read[2:0] == FMT_GATE);
    end
    case (state)
      FETCH:   state <= DECODE;
      DECODE:  if (holds) state <= fmt == FMT_CONV ? TAPS : GATE1;
      GATE1:   state <= GATE2;
      GATE2:   state <= GATE3;
      default: ;
    endcase
    if (advance) begin
      state <= fetch || axon_pop ? FETCH : REST;
      row_at <= row_next;
      if (axon_pop) axon_pre <= pre;
    end
    if (rst) state <= REST;
  end

  // --- the run that is issued
  logic valid, header, half, first_group, last;
  logic [1:0] kind;
  logic [15:0] addr;
  logic [10:0] left;  // synapses still to come after this clock's; in L of DENSE also the header's two halves
  logic [9:0] target, step;
  logic [7:0] weight, run_pre;
  logic [2:0] shift, run_rule;

  always_comb begin
    if (header) last = 1'b0;
    else if (!learning) last = left == 11'd0;
    else if (kind == SPARSE) last = left[10:2] == 9'd0;
    else last = half && left[10:3] == 8'd0;
    for (int i = 0; i < 4; i++) begin
      if (kind == SPARSE) op_lanes[i] = left[10:2] != 9'd0 || left[1:0] >= 2'(i);
      else op_lanes[i] = (left[10:3] != 8'd0 || left[2:0] >= {2'(i), half}) && !(first_group && i == 0);
    end
  end
  assign free = !valid || last;
  assign idle = state == REST && !valid && !axon_valid;
  assign op_valid = valid;
  assign op_header = header;
  assign op_kind = kind;
  assign op_half = half;
  assign op_addr = addr;
  assign op_target = target;
  assign op_weight = weight;
  assign op_shift = shift;
  assign op_rule = run_rule;
  assign op_pre = run_pre;

  // One adder each, which also loads: what is added is 0 then, or the two halves of the header.
  logic [10:0] left_from, left_more;
  logic [15:0] addr_from, addr_more;
  logic [9:0] target_from, target_more;
  logic step_left, step_addr;
  always_comb begin
    step_left = !header && (!learning || kind == SPARSE || half);
    step_addr = learning ? step_left : header || kind == SPARSE || half;
    left_from = !free ? left : {1'b0, run ? row[19:10] : tap_count};
    addr_from = !free ? addr : run ? row[35:20] : tap_addr;
    target_from = !free ? target : run ? row[27:18] : tap_target;
    if (free && !run) left_more = -11'd1;
    else if (free) left_more = {9'd0, learning && fmt == FMT_DENSE, 1'b0};
    else if (!step_left) left_more = 11'd0;
    else left_more = !learning ? -11'd1 : kind == SPARSE ? -11'd4 : -11'd8;
    addr_more = {13'd0, !free && step_addr && learning, 1'b0, !free && step_addr && !learning};
    target_more = free || header ? 10'd0 : step;
  end

  always_ff @(posedge clk) begin
    left <= left_more + left_from;
    if (free && run && fmt == FMT_ONE) left <= 11'd0;
    addr <= addr_more + addr_from;
    target <= target_more + target_from;
    header <= 1'b0;
    half <= !header && (learning ? kind != SPARSE : kind == DENSE || kind == CONV) && !half;
    if (half) first_group <= 1'b0;
    if (free) begin
      valid <= load;
      header <= run && fmt == FMT_DENSE;
      half <= 1'b0;
      first_group <= 1'b1;
      kind <= !run ? CONV : fmt == FMT_SPARSE ? SPARSE : fmt == FMT_DENSE ? DENSE : ONE;
      step <= tap_step;
      weight <= row[17:10];
      shift <= row[6:4];
      run_rule <= plastic ? rule : 3'd0;
      run_pre <= axon_pre;
    end
    if (rst) valid <= 1'b0;
  end
endmodule
