// Up to 2 x 2 cores, their routers and the barrier that closes a step.
module nc_mesh #(
    parameter int N = 1024,
    parameter int A = 2048,
    parameter int W = 65536,
    parameter int TYPES = 16,
    parameter int GEOMS = 16,
    parameter int X = 1,
    parameter int Y = 1
) (
    input  logic        clk,
    input  logic        rst,
    // memories, one access at a time, while not busy
    input  logic        bus_valid,
    input  logic        bus_write,
    input  logic [ 1:0] bus_core,
    input  logic [ 3:0] bus_mem,
    input  logic [15:0] bus_addr,
    // verilator lint_off UNUSEDSIGNAL
    input  logic [39:0] bus_wdata,  // no memory is wider than 36 bits
    // verilator lint_on UNUSEDSIGNAL
    output logic        bus_ready,
    output logic        bus_rvalid,
    output logic [39:0] bus_rdata,
    // steps
    input  logic        step,
    input  logic        restart,
    output logic        busy,
    output logic [31:0] step_count,
    // external events, while not busy
    input  logic        inj_valid,
    input  logic [ 1:0] inj_core,
    input  logic [10:0] inj_axon,
    input  logic [ 3:0] inj_slot,
    output logic        inj_ready,
    // logged spikes
    output logic        log_valid,
    output logic [ 1:0] log_core,
    output logic [ 9:0] log_neuron,
    input  logic        log_ready
);
  localparam int CORES = X * Y;
  localparam logic [3:0] PRESENT = 4'((1 << CORES) - 1);

  // What goes to all cores and back is in registers here and in the cores: they are all over the chip.
  logic asked, waiting, ready, begins, start, clear, finish, running, ends, stepping, resting, log_full, log_empty;
  logic [3:0] quiet, routers_empty, empty, core_ready, core_bus_valid, core_inj_valid, core_bus_rvalid;
  logic [3:0] core_log_valid, logs, log_taken;
  logic [143:0] core_bus_rdata;
  logic [39:0] core_log_neuron;

  // --- the host's side: one access or event at a time goes to the cores; a core that is not there answers 0
  logic bus_waits, bus_taken, bus_there, inj_waits, inj_taken, inj_there, to_write;
  logic [1:0] to_core, inj_to_core, settle;  // clocks until what was sent shows in core_ready
  logic [3:0] to_mem, inj_to_slot;
  logic [15:0] to_addr;
  logic [35:0] to_wdata, rdata;
  logic [10:0] inj_to_axon;

  assign bus_ready = !bus_waits && !inj_waits && !busy && !asked;
  assign inj_ready = bus_ready && !bus_valid;
  assign bus_there = {1'b0, to_core} < 3'(CORES);
  assign inj_there = {1'b0, inj_to_core} < 3'(CORES);
  assign bus_taken = bus_waits && (!bus_there || (core_ready[to_core] && settle == 2'd0));
  assign inj_taken = inj_waits && (!inj_there || (core_ready[inj_to_core] && settle == 2'd0));
  // the cores that were not asked say 0
  assign rdata = core_bus_rdata[0+:36] | core_bus_rdata[36+:36] | core_bus_rdata[72+:36] | core_bus_rdata[108+:36];
  always_ff @(posedge clk) begin
    if (bus_ready) {to_write, to_core, to_mem, to_addr, to_wdata} <= {bus_write, bus_core, bus_mem, bus_addr, bus_wdata[35:0]};
    if (bus_ready) {inj_to_core, inj_to_axon, inj_to_slot} <= {inj_core, inj_axon, inj_slot};
    bus_waits  <= (bus_valid && bus_ready) || (bus_waits && !bus_taken);
    inj_waits  <= (inj_valid && inj_ready) || (inj_waits && !inj_taken);
    core_bus_valid <= {3'd0, bus_taken && bus_there} << to_core;
    core_inj_valid <= {3'd0, inj_taken && inj_there} << inj_to_core;
    if (bus_taken || inj_taken) settle <= 2'd3;
    else if (settle != 2'd0) settle <= settle - 2'd1;
    bus_rvalid <= core_bus_rvalid != 4'd0 || (bus_taken && !bus_there && !to_write);
    bus_rdata  <= {4'd0, rdata};
    if (rst) {bus_waits, inj_waits, bus_rvalid, core_bus_valid, core_inj_valid, settle} <= '0;
  end

  // --- the barrier
  // A step begins where no core is in the middle of an access. Where all is at rest at one time it stays so: `quiet` and
  // `empty` are of the same clock, and what a core logged then is in `logs` or behind it in the next.
  assign asked = (step || restart) && !busy;
  assign begins = waiting && ready;
  assign ends = running && resting;
  always_ff @(posedge clk) begin
    empty   <= routers_empty;
    ready   <= (core_ready | ~PRESENT) == 4'b1111 && !bus_waits && !inj_waits && settle == 2'd0;
    resting <= quiet == 4'b1111 && empty == 4'b1111 && logs == 4'd0 && log_empty;
    start   <= begins && stepping && !rst;
    clear   <= begins && !stepping && !rst;
    finish  <= ends && !rst;
    if (ends) begin
      busy <= 1'b0;
      running <= 1'b0;
      if (stepping) step_count <= step_count + 32'd1;
    end
    if (asked) begin
      busy <= 1'b1;
      waiting <= 1'b1;
      stepping <= step;
    end
    if (begins) begin
      waiting <= 1'b0;
      running <= 1'b1;
      if (!stepping) step_count <= '0;
    end
    if (rst) begin
      busy <= 1'b0;
      waiting <= 1'b0;
      running <= 1'b0;
      step_count <= '0;
    end
  end

  // --- the log: a register for each core, which take turns
  logic [1:0] log_turn;
  logic log_push;
  logic [9:0] log_head;
  logic [39:0] log_neurons;
  assign log_push = logs[log_turn] && !log_full;
  assign log_taken = {3'd0, log_push} << log_turn;
  always_comb begin
    log_head = log_neurons[9:0];
    for (int i = 1; i < 4; i++) if (32'(log_turn) == i) log_head = log_neurons[10*i+:10];
  end
  nc_fifo #(
      .WIDTH(12),
      .DEPTH(4)
  ) log (
      .clk,
      .rst,
      .push (log_push),
      .wdata({log_turn, log_head}),
      .pop  (log_valid && log_ready),
      .rdata({log_core, log_neuron}),
      .empty(log_empty),
      .full (log_full),
      // verilator lint_off PINCONNECTEMPTY
      .count()
      // verilator lint_on PINCONNECTEMPTY
  );
  assign log_valid = !log_empty;
  always_ff @(posedge clk) begin
    for (int i = 0; i < 4; i++) if (!logs[i]) log_neurons[10*i+:10] <= core_log_neuron[10*i+:10];
    logs <= (core_log_valid | logs) & ~log_taken;
    if (!logs[log_turn] || log_push) begin
      if (logs[log_turn+2'd1]) log_turn <= log_turn + 2'd1;
      else if (logs[log_turn+2'd2]) log_turn <= log_turn + 2'd2;
      else if (logs[log_turn+2'd3]) log_turn <= log_turn + 2'd3;
    end
    if (rst) {logs, log_turn} <= '0;
  end

  // --- cores and routers, links by receiving core: x_ from the neighbour in X, y_ from the neighbour in Y
  logic [3:0] x_valid, y_valid, x_ready, y_ready;
  logic [51:0] x_flit, y_flit;

  for (genvar i = 0; i < 4; i++) begin : node
    if (i < CORES) begin : present
      localparam int AT_X = i % X, AT_Y = i / X;
      logic tx_valid, tx_ready, rx_valid, rx_ready, x_in_valid, y_in_valid, x_in_ready, y_in_ready, x_out_ready, y_out_ready;
      logic x_out_valid, y_out_valid;
      logic [1:0] tx_core;
      logic [10:0] tx_axon, rx_axon;
      logic [12:0] tx_flit, x_out, y_out;

      nc_core #(
          .N(N),
          .A(A),
          .W(W),
          .TYPES(TYPES),
          .GEOMS(GEOMS),
          .CORES(CORES)
      ) core (
          .clk,
          .rst,
          .self      (2'(i)),
          .start,
          .restart   (clear),
          .finish,
          .quiet     (quiet[i]),
          .step      (step_count),
          .ready     (core_ready[i]),
          .bus_valid (core_bus_valid[i]),
          .bus_write (to_write),
          .bus_mem   (to_mem),
          .bus_addr  (to_addr),
          .bus_wdata (to_wdata),
          .bus_rvalid(core_bus_rvalid[i]),
          .bus_rdata (core_bus_rdata[36*i+:36]),
          .inj_valid (core_inj_valid[i]),
          .inj_axon  (inj_to_axon),
          .inj_slot  (inj_to_slot),
          .tx_valid,
          .tx_core,
          .tx_axon,
          .tx_ready,
          .rx_valid,
          .rx_axon,
          .rx_ready,
          .log_valid (core_log_valid[i]),
          .log_neuron(core_log_neuron[10*i+:10]),
          .log_ready (!logs[i])
      );

      if (CORES > 1) begin : mesh
        assign tx_flit = X == 2 ? {tx_core, tx_axon} : {tx_core[0], 1'b0, tx_axon};
        logic router_rst;
        nc_near #(.WIDTH(1)) reset_here (.clk, .d(rst), .q(router_rst));
        nc_router #(
            .MY_X(1'(AT_X)),
            .MY_Y(1'(AT_Y))
        ) router (
            .clk,
            .rst           (router_rst),
            .empty         (routers_empty[i]),
            .core_in_valid (tx_valid),
            .core_in       (tx_flit),
            .core_in_ready (tx_ready),
            .core_out_valid(rx_valid),
            .core_out      (rx_axon),
            .core_out_ready(rx_ready),
            .x_in_valid,
            .x_in          (x_flit[13*i+:13]),
            .x_in_ready,
            .x_out_valid,
            .x_out,
            .x_out_ready,
            .y_in_valid,
            .y_in          (y_flit[13*i+:13]),
            .y_in_ready,
            .y_out_valid,
            .y_out,
            .y_out_ready
        );
      end else begin : alone
        assign {tx_ready, rx_valid, rx_axon, routers_empty[i]} = {1'b1, 1'b0, 11'd0, 1'b1};
        assign {x_out_valid, y_out_valid, x_out, y_out, x_in_ready, y_in_ready} = '0;
      end

      localparam int X_PEER = AT_Y * X + (X - 1 - AT_X), Y_PEER = (Y - 1 - AT_Y) * X + AT_X;
      assign x_in_valid = x_valid[i];
      assign y_in_valid = y_valid[i];
      assign x_ready[i] = x_in_ready;
      assign y_ready[i] = y_in_ready;
      assign x_valid[X_PEER] = X == 2 && x_out_valid;
      assign y_valid[Y_PEER] = Y == 2 && y_out_valid;
      assign x_flit[13*X_PEER+:13] = x_out;
      assign y_flit[13*Y_PEER+:13] = y_out;
      assign x_out_ready = x_ready[X_PEER];
      assign y_out_ready = y_ready[Y_PEER];
    end else begin : absent
      assign {quiet[i], routers_empty[i], core_ready[i], core_bus_rvalid[i], core_log_valid[i]} = 5'b11000;
      assign core_log_neuron[10*i+:10] = '0;
      assign core_bus_rdata[36*i+:36] = '0;
      assign {x_valid[i], y_valid[i], x_ready[i], y_ready[i]} = '0;
      assign {x_flit[13*i+:13], y_flit[13*i+:13]} = '0;
    end
  end
endmodule
