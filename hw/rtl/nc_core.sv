// One neurocore: see docs/neurocore.md. A step is D, U, where learning is on L, and then the wait for all that was sent.
module nc_core #(
    parameter int N = 1024,
    parameter int A = 2048,
    parameter int W = 65536,
    parameter int TYPES = 16,
    parameter int GEOMS = 16,
    parameter int CORES = 1,
    parameter int NX = $clog2(N),
    parameter int AX = $clog2(A)
) (
    input  logic        clk,
    input  logic        rst,
    input  logic [ 1:0] self,        // the own number
    // the barrier: one clock each
    input  logic        start,
    input  logic        restart,
    input  logic        finish,
    output logic        quiet,       // waits for `finish` and has sent and taken all
    input  logic [31:0] step,
    // memory bus: accesses and events of the host come one at a time, and only while `ready`
    output logic        ready,
    input  logic        bus_valid,
    input  logic        bus_write,
    input  logic [ 3:0] bus_mem,
    input  logic [15:0] bus_addr,
    input  logic [35:0] bus_wdata,
    output logic        bus_rvalid,
    output logic [35:0] bus_rdata,      // 0 where nothing is read
    // external events
    input  logic        inj_valid,
    input  logic [10:0] inj_axon,
    input  logic [ 3:0] inj_slot,
    // mesh
    output logic        tx_valid,
    output logic [ 1:0] tx_core,
    output logic [10:0] tx_axon,
    input  logic        tx_ready,
    input  logic        rx_valid,
    input  logic [10:0] rx_axon,
    output logic        rx_ready,
    // logged spikes
    output logic        log_valid,
    output logic [ 9:0] log_neuron,
    input  logic        log_ready
);
  // one piece of simulated code for all cores
  // verilator no_inline_module
  localparam logic [3:0] MEM_WORDS = 4'd0, MEM_ROWS = 4'd1, MEM_PARAMS = 4'd2, MEM_ROUTES = 4'd3, MEM_TYPES = 4'd4,
      MEM_GEOMS = 4'd5, MEM_RULES = 4'd6, MEM_U = 4'd7, MEM_V = 4'd8, MEM_ACC = 4'd9, MEM_POST = 4'd10, MEM_PRE = 4'd11,
      MEM_PENDING = 4'd12, MEM_FIRED = 4'd13, MEM_REGISTERS = 4'd14, MEM_COUNTERS = 4'd15;

  // --- from afar
  logic [7:0] resets;  // of the parts of the core; the last is its own
  logic starts, restarts, finishes, asks, asks_write, event_valid;
  logic [ 3:0] asks_mem, event_slot;
  logic [15:0] asks_addr;
  logic [35:0] asks_wdata;
  logic [10:0] event_axon;
  logic [31:0] near_step;
  nc_near #(.WIDTH(8)) reset_here (.clk, .d({8{rst}}), .q(resets));
  nc_near #(.WIDTH(3)) barrier (.clk, .d({start, restart, finish}), .q({starts, restarts, finishes}));
  nc_near #(.WIDTH(58)) bus (
      .clk, .d({bus_valid, bus_write, bus_mem, bus_addr, bus_wdata}), .q({asks, asks_write, asks_mem, asks_addr, asks_wdata})
  );
  nc_near #(.WIDTH(16)) event_here (
      .clk, .d({inj_valid, inj_axon, inj_slot}), .q({event_valid, event_axon, event_slot})
  );
  nc_near #(.WIDTH(32)) step_here (.clk, .d(step), .q(near_step));

  // --- phases
  typedef enum logic [2:0] {REST, DELIVER, UPDATE, LEARN, ZERO, CLOSE} phase_t;
  phase_t phase;
  logic enter;  // the first clock of a phase
  logic learning, learn, scan_done, walk_idle, deliver_working, update_working, send_working, pending_working;
  logic zeroing, zeroed;

  assign learning = phase == LEARN;
  assign zeroing = phase == ZERO;

  always_ff @(posedge clk) begin
    quiet <= phase == CLOSE && !send_working && !pending_working;
    enter <= 1'b0;
    case (phase)
      REST:
      if (starts || restarts) begin
        phase <= starts ? DELIVER : ZERO;
        enter <= 1'b1;
      end
      DELIVER:
      if (!enter && scan_done && walk_idle && !deliver_working) begin
        phase <= UPDATE;
        enter <= 1'b1;
      end
      UPDATE:
      if (!enter && !update_working) begin
        phase <= learn ? LEARN : CLOSE;
        enter <= 1'b1;
      end
      LEARN:   if (!enter && scan_done && walk_idle && !deliver_working) phase <= CLOSE;
      ZERO:    if (zeroed) phase <= CLOSE;
      default: if (finishes) phase <= REST;
    endcase
    if (resets[7]) begin
      phase <= REST;
      enter <= 1'b0;
    end
  end

  // --- the bus: an access waits for the read data; a write that changes a part of a word needs the rest of it. All of it is
  // a clock later beside the memories (nc_near). RESTART is a write of 0 to all items of those memories.
  localparam int ZX = AX > NX ? AX : NX;
  localparam logic [15:0] ZEROED = 16'h3f80;  // MEM_U to MEM_FIRED
  logic bus_active, b_active, b_write, b_do, b_we;
  logic [3:0] b_mem;
  logic [15:0] b_addr;
  logic [35:0] b_wdata;
  logic [4:0] b_wait;
  logic [15:0] b_we_mem;

  assign b_do = bus_active && b_wait == 5'd0;
  assign b_we = b_do && b_write;
  assign b_active = bus_active || zeroing;
  assign zeroed = b_addr[ZX-1:0] == {ZX{1'b1}};
  assign b_we_mem = zeroing && !enter ? ZEROED : {15'd0, b_we} << b_mem;

  always_ff @(posedge clk) begin
    if (b_wait != 5'd0) b_wait <= b_wait - 5'd1;
    if (b_do) bus_active <= 1'b0;
    ready <= phase == REST && !bus_active && !pending_working && !resets[7];
    if (asks) begin
      bus_active <= 1'b1;
      {b_write, b_mem, b_addr, b_wdata} <= {asks_write, asks_mem, asks_addr, asks_wdata};
      case (asks_mem)
        MEM_COUNTERS: b_wait <= 5'd25;
        MEM_U, MEM_V, MEM_ACC, MEM_POST: b_wait <= 5'd5;
        default: b_wait <= asks_write ? 5'd0 : 5'd8;
      endcase
    end
    if (restarts) {b_addr, b_wdata} <= '0;
    if (zeroing && !enter) b_addr <= b_addr + 16'd1;
    if (resets[7]) bus_active <= 1'b0;
  end

  // --- the phase, where it is needed
  logic walk_learning, scan_learning, delivering, deliver_learning, updating;
  nc_near #(.WIDTH(1)) phase_of_walk (.clk, .d(learning), .q(walk_learning));
  nc_near #(.WIDTH(1)) phase_of_scan (.clk, .d(learning), .q(scan_learning));
  nc_near #(.WIDTH(3)) phase_of_deliver (
      .clk, .d({phase == DELIVER || learning, learning, phase == UPDATE}), .q({delivering, deliver_learning, updating})
  );

  // --- registers
  logic [31:0] window;
  logic [25:0] traces;
  logic [3:0] k_pre, k_post;
  logic [7:0] inc_pre, inc_post;
  logic add_pre, add_post;
  assign {add_post, add_pre, inc_post, inc_pre, k_post, k_pre} = traces;
  always_ff @(posedge clk) begin
    if (b_we_mem[MEM_REGISTERS]) begin
      case (b_addr[3:0])
        4'd0: window <= b_wdata[31:0];
        4'd1: learn <= b_wdata[0];
        4'd2: traces <= b_wdata[25:0];
        default: ;
      endcase
    end
    if (resets[7]) begin
      window <= '0;
      learn  <= 1'b0;
      traces <= '0;
    end
  end

  // --- pending bits and the axons of a step
  logic take_valid, take_rvalid, axon_valid, axon_pop, delay_valid, delay_ready, local_valid, local_ready;
  logic [AX-2:0] take_addr;
  logic [31:0] pending_word;
  logic [AX-1:0] axon, delay_axon;
  logic [7:0] pre, pre_rdata;
  logic [3:0] delay_steps, slot, next_slot;
  logic [10:0] route_axon;

  always_ff @(posedge clk) slot <= near_step[3:0];
  assign next_slot = slot + 4'd1;

  nc_pending #(
      .A(A)
  ) pending (
      .clk,
      .rst(resets[0]),
      .take_valid,
      .take_clear  (scan_learning || !learn),
      .take_addr,
      .take_rvalid,
      .word        (pending_word),
      .delay_valid,
      .delay_bit   ({slot + delay_steps, delay_axon}),
      .delay_ready,
      .local_valid,
      .local_bit   ({next_slot, route_axon[AX-1:0]}),
      .local_ready,
      .mesh_valid  (rx_valid),
      .mesh_bit    ({next_slot, rx_axon[AX-1:0]}),
      .mesh_ready  (rx_ready),
      .inject_valid(event_valid),
      .inject_bit  ({event_slot, event_axon[AX-1:0]}),
      .working     (pending_working),
      .bus_active  (b_active),
      .bus_addr    (b_addr[AX-2:0]),
      .bus_we      (b_we_mem[MEM_PENDING]),
      .bus_wdata   (b_wdata[31:0])
  );

  nc_scan #(
      .A(A)
  ) scan (
      .clk,
      .rst(resets[1]),
      .start    (enter && (phase == DELIVER || phase == LEARN)),
      .learning (scan_learning),
      .slot,
      .done     (scan_done),
      .take_valid,
      .take_addr,
      .take_rvalid,
      .take_word(pending_word),
      .k_pre,
      .inc_pre,
      .add_pre,
      .axon_valid,
      .axon,
      .pre,
      .axon_pop,
      .bus_active(b_active),
      .bus_addr (b_addr[AX-1:0]),
      .bus_we   (b_we_mem[MEM_PRE]),
      .bus_wdata(b_wdata[7:0]),
      .bus_rdata(pre_rdata)
  );

  // --- rows and synapses
  logic gate_fired, op_valid, op_header, op_half;
  logic [9:0] gate_neuron, op_target;
  logic [1:0] op_kind;
  logic [15:0] op_addr;
  logic [7:0] op_weight, op_pre;
  logic [2:0] op_shift, op_rule;
  logic [3:0] op_lanes;
  logic [35:0] rows_rdata, tables_read;
  logic [3:0] geom;
  logic [1:0] geom_part;

  // Types, geometries and rules as the host wrote them. The geometries are used from here; types and rules are needed in
  // several places at once, in their own small RAMs.
  logic [8:0] tables_addr;
  localparam int TX = $clog2(4 * TYPES), GX = $clog2(4 * GEOMS);
  always_comb begin
    tables_addr = '0;
    case (b_mem)
      MEM_TYPES: tables_addr[TX-1:0] = b_addr[TX-1:0];
      MEM_GEOMS: tables_addr[8:0] = {3'b100, {(6 - GX) {1'b0}}, b_addr[GX-1:0]};
      default: tables_addr[8:0] = {5'b11000, b_addr[3:0]};
    endcase
  end
  logic tables_host, tables_we;
  logic [8:0] tables_host_addr;
  logic [35:0] tables_wdata;
  nc_near #(.WIDTH(47)) tables_bus (
      .clk,
      .d({b_active, b_we_mem[MEM_TYPES] || b_we_mem[MEM_GEOMS] || b_we_mem[MEM_RULES], tables_addr, b_wdata}),
      .q({tables_host, tables_we, tables_host_addr, tables_wdata})
  );
  nc_ram #(
      .WIDTH(36),
      .DEPTH(512)
  ) tables (
      .clk,
      .we   (tables_we),
      .waddr(tables_host_addr),
      .wdata(tables_wdata),
      .raddr(tables_host ? tables_host_addr : {3'b100, {(6 - GX) {1'b0}}, geom[GX-3:0], geom_part}),
      .rdata(tables_read)
  );

  nc_walk #(
      .A(A)
  ) walk (
      .clk,
      .rst(resets[2]),
      .learning (walk_learning),
      .plastic  (learn),
      .idle     (walk_idle),
      .axon_valid,
      .axon,
      .pre,
      .axon_pop,
      .gate_neuron,
      .gate_fired,
      .delay_valid,
      .delay_axon,
      .delay_steps,
      .delay_ready,
      .geom,
      .geom_part,
      .geom_item(tables_read[27:0]),
      .op_valid,
      .op_header,
      .op_kind,
      .op_half,
      .op_addr,
      .op_target,
      .op_weight,
      .op_shift,
      .op_rule,
      .op_pre,
      .op_lanes,
      .bus_active(b_active),
      .bus_addr (b_addr[AX-1:0]),
      .rows_we  (b_we_mem[MEM_ROWS]),
      .bus_wdata(b_wdata),
      .rows_rdata
  );

  logic [NX-1:0] cell_raddr, cell_waddr, spike_neuron;
  logic [23:0] acc_rdata, u_rdata;
  logic [7:0] post_rdata, cell_wpost;
  logic [31:0] fired_wdata, fired_rdata;
  logic [NX-6:0] fired_waddr;
  logic cell_we, fired_we, counts_synapse, counts_wrap, counts_down, spike, has_room, stalled, saturated;
  logic [2:0] counts_up;
  logic [17:0] words_rdata;
  logic [25:0] params_rdata;
  logic [15:0] spike_route, routes_rdata;
  logic [29:0] v_rdata;

  nc_deliver #(
      .N(N),
      .W(W)
  ) deliver (
      .clk,
      .rst(resets[3]),
      .delivering,
      .learning   (deliver_learning),
      .op_valid,
      .op_header,
      .op_kind,
      .op_half,
      .op_addr,
      .op_target,
      .op_weight,
      .op_shift,
      .op_rule,
      .op_pre,
      .op_lanes,
      .working    (deliver_working),
      .gate_neuron,
      .gate_fired,
      .update     (updating),
      .cell_raddr,
      .cell_acc   (acc_rdata),
      .cell_post  (post_rdata),
      .cell_we,
      .cell_waddr,
      .cell_wpost,
      .fired_we   (fired_we || b_we_mem[MEM_FIRED]),
      .fired_waddr(b_active ? b_addr[NX-6:0] : fired_waddr),
      .fired_wdata(b_active ? b_wdata[31:0] : fired_wdata),
      .counts_synapse,
      .counts_wrap,
      .counts_down,
      .counts_up,
      .bus_active (b_active),
      .bus_addr   (b_addr),
      .bus_wdata  (b_wdata[24:0]),
      .words_we   (b_we_mem[MEM_WORDS]),
      .words_rdata,
      .acc_we     (b_we_mem[MEM_ACC]),
      .post_we    (b_we_mem[MEM_POST]),
      .fired_rdata,
      .rules_we   (b_we_mem[MEM_RULES])
  );

  nc_update #(
      .N(N),
      .TYPES(TYPES)
  ) update (
      .clk,
      .rst(resets[4]),
      .start       (enter && phase == UPDATE),
      .may_issue   (has_room),
      .working     (update_working),
      .stalled,
      .step        (near_step),
      .window,
      .learn,
      .k_post,
      .inc_post,
      .add_post,
      .cell_raddr,
      .cell_acc    (acc_rdata),
      .cell_post   (post_rdata),
      .cell_we,
      .cell_waddr,
      .cell_wpost,
      .fired_we,
      .fired_waddr,
      .fired_wdata,
      .spike,
      .spike_neuron,
      .spike_route,
      .saturated,
      .bus_active  (b_active),
      .bus_addr    (b_addr[9:0]),
      .bus_wdata   (b_wdata),
      .params_we   (b_we_mem[MEM_PARAMS]),
      .params_rdata,
      .routes_we   (b_we_mem[MEM_ROUTES]),
      .routes_rdata,
      .types_we    (b_we_mem[MEM_TYPES]),
      .u_we        (b_we_mem[MEM_U]),
      .u_rdata,
      .v_we        (b_we_mem[MEM_V]),
      .v_rdata
  );

  nc_send #(
      .NX(NX),
      .CORES(CORES)
  ) send (
      .clk,
      .rst(resets[5]),
      .self,
      .spike,
      .spike_neuron,
      .spike_route,
      .has_room,
      .working    (send_working),
      .log_valid,
      .log_neuron,
      .log_ready,
      .local_valid,
      .local_ready,
      .mesh_valid (tx_valid),
      .mesh_core  (tx_core),
      .mesh_ready (tx_ready),
      .axon       (route_axon)
  );
  assign tx_axon = route_axon;

  // --- counters
  logic stepping;
  logic [13:0] count;
  logic [ 2:0] count_up;
  logic [31:0] counters_rdata;
  always_ff @(posedge clk) begin
    if (starts || finishes || resets[7]) stepping <= starts && !resets[7];
  end
  always_ff @(posedge clk) begin
    count <= '0;
    count[0] <= counts_synapse;
    count[2] <= spike;
    count[3] <= starts;
    count[4] <= stepping;
    count[6] <= tx_valid && tx_ready;
    count[7] <= rx_valid && rx_ready;
    count[8] <= counts_down;
    count[10] <= counts_wrap;
    count[11] <= saturated;
    count[12] <= stalled;
    count[13] <= axon_pop && !learning;
    count_up <= counts_up;
  end
  nc_count counters (
      .clk,
      .rst(resets[6]),
      .clear    (bus_active && b_write && b_mem == MEM_COUNTERS),
      .count,
      .count_up,
      .bus_addr (b_addr[3:0]),
      .bus_rdata(counters_rdata)
  );

  // --- what the host reads: a register for each memory, 0 but for the one that is asked for, and all of them or-ed. A
  // multiplexer of so many would be twice as large and far too slow.
  logic [15:0] asked;
  logic [17:0] words_out;
  logic [35:0] rows_out, tables_out;
  logic [25:0] params_out, traces_out;
  logic [15:0] routes_out;
  logic [23:0] u_out, acc_out;
  logic [29:0] v_out;
  logic [7:0] post_out, pre_out;
  logic [31:0] pending_out, fired_out, counters_out, window_out, step_out;
  logic learn_out;
  always_ff @(posedge clk) begin
    asked <= {15'd0, bus_active && !b_write} << b_mem;
    words_out <= asked[MEM_WORDS] ? words_rdata : '0;
    rows_out <= asked[MEM_ROWS] ? rows_rdata : '0;
    params_out <= asked[MEM_PARAMS] ? params_rdata : '0;
    routes_out <= asked[MEM_ROUTES] ? routes_rdata : '0;
    tables_out <= asked[MEM_TYPES] || asked[MEM_GEOMS] || asked[MEM_RULES] ? tables_read : '0;
    u_out <= asked[MEM_U] ? u_rdata : '0;
    v_out <= asked[MEM_V] ? v_rdata : '0;
    acc_out <= asked[MEM_ACC] ? acc_rdata : '0;
    post_out <= asked[MEM_POST] ? post_rdata : '0;
    pre_out <= asked[MEM_PRE] ? pre_rdata : '0;
    pending_out <= asked[MEM_PENDING] ? pending_word : '0;
    fired_out <= asked[MEM_FIRED] ? fired_rdata : '0;
    window_out <= asked[MEM_REGISTERS] && b_addr[3:0] == 4'd0 ? window : '0;
    learn_out <= asked[MEM_REGISTERS] && b_addr[3:0] == 4'd1 && learn;
    traces_out <= asked[MEM_REGISTERS] && b_addr[3:0] == 4'd2 ? traces : '0;
    step_out <= asked[MEM_REGISTERS] && b_addr[3:0] == 4'd3 ? near_step : '0;
    counters_out <= asked[MEM_COUNTERS] ? counters_rdata : '0;

    bus_rvalid <= b_do && !b_write && !resets[7];
    bus_rdata <= {18'd0, words_out} | rows_out | {10'd0, params_out} | {20'd0, routes_out} | tables_out
        | {12'd0, u_out} | {6'd0, v_out} | {12'd0, acc_out} | {28'd0, post_out} | {28'd0, pre_out}
        | {4'd0, pending_out} | {4'd0, fired_out} | {4'd0, window_out} | {35'd0, learn_out} | {10'd0, traces_out}
        | {4'd0, step_out} | {4'd0, counters_out};
  end
endmodule
