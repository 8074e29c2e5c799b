// Phase U: the neurons in ascending order, one a clock.
//
//   e2 state, parameters   e5 decayed magnitudes   e8 u             e11 leaked    e14 what is written
//   e3 fields of the type  e6 input in u's units   e9, e10 v        e12 v, vth
//   e4 products            e7 u before saturation                   e13 above vth?
module nc_update #(
    parameter int N = 1024,
    parameter int TYPES = 16,
    parameter int NX = $clog2(N),
    parameter int TX = $clog2(TYPES)
) (
    input  logic          clk,
    input  logic          rst,
    input  logic          start,
    input  logic          may_issue,      // the queue of spikes has room for all that is on its way
    output logic          working,
    output logic          stalled,
    input  logic [  31:0] step,
    input  logic [  31:0] window,
    input  logic          learn,
    input  logic [   3:0] k_post,
    input  logic [   7:0] inc_post,
    input  logic          add_post,
    // accumulators and post traces
    output logic [NX-1:0] cell_raddr,
    input  logic [  23:0] cell_acc,       // two clocks after
    input  logic [   7:0] cell_post,
    output logic          cell_we,
    output logic [NX-1:0] cell_waddr,
    output logic [   7:0] cell_wpost,
    output logic          fired_we,
    output logic [NX-6:0] fired_waddr,
    output logic [  31:0] fired_wdata,
    // a neuron that fired
    output logic          spike,
    output logic [NX-1:0] spike_neuron,
    output logic [  15:0] spike_route,
    output logic          saturated,
    // host
    input  logic          bus_active,
    input  logic [   9:0] bus_addr,
    input  logic [  35:0] bus_wdata,
    input  logic          params_we,
    output logic [  25:0] params_rdata,
    input  logic          routes_we,
    output logic [  15:0] routes_rdata,
    input  logic          types_we,
    input  logic          u_we,
    output logic [  23:0] u_rdata,
    input  logic          v_we,
    output logic [  29:0] v_rdata
);
  localparam logic [23:0] TOP = 24'h7fffff, BOTTOM = 24'h800001;

  // --- when a neuron's window is open: n = step - level >= 0, and n < window where there is one
  logic [5:0] steps;       // step, 63 for more
  logic [32:0] beyond;     // step - window
  logic any_level;            // of the window whatever the level
  logic [6:0] over;        // beyond, 64 for more; open where it is less than the level
  always_ff @(posedge clk) begin
    steps <= step[31:6] != 26'd0 ? 6'd63 : step[5:0];
    beyond <= {1'b0, step} - {1'b0, window};
    any_level <= beyond[32] || window == 32'd0;
    over <= beyond[31:6] != 26'd0 ? 7'd64 : {1'b0, beyond[5:0]};
  end

  // --- issue
  logic issuing, go;
  logic [NX-1:0] n0, n12, n13, n14;
  logic [14:1] valid;
  assign go = issuing && may_issue;
  assign stalled = issuing && !may_issue;
  assign working = issuing || valid != '0;
  assign cell_raddr = n0;
  always_ff @(posedge clk) begin
    if (go) begin
      n0 <= n0 + 1'b1;
      issuing <= n0 != {NX{1'b1}};
    end
    if (start) begin
      n0 <= '0;
      issuing <= 1'b1;
    end
    valid <= {valid[13:1], go};
    {n13, n14} <= {n12, n13};
    if (rst) {issuing, valid} <= '0;
  end
  nc_delay #(.WIDTH(NX), .STEPS(12)) numbers (.clk, .d(n0), .q(n12));

  // --- e2: state and parameters. u, v and refr share a RAM; the host writes a part by reading the rest first.
  logic [53:0] state_read, e2_state, host_state, e14_state;
  logic [25:0] params_read, e2_params, params_wdata;
  logic [29:0] host_v;
  logic [23:0] host_u;
  logic [NX-1:0] host_addr, params_addr;
  logic state_we, host, host_u_we, host_v_we, params_host, params_host_we;
  nc_near #(.WIDTH(NX + 33)) state_bus (
      .clk, .d({bus_active, u_we, v_we, bus_addr[NX-1:0], bus_wdata[29:0]}), .q({host, host_u_we, host_v_we, host_addr, host_v})
  );
  nc_near #(.WIDTH(NX + 28)) params_bus (
      .clk, .d({bus_active, params_we, bus_addr[NX-1:0], bus_wdata[25:0]}), .q({params_host, params_host_we, params_addr, params_wdata})
  );
  nc_ram #(
      .WIDTH(54),
      .DEPTH(N)
  ) state (
      .clk,
      .we   (state_we || host_u_we || host_v_we),
      .waddr(host ? host_addr : n14),
      .wdata(host ? host_state : e14_state),
      .raddr(host ? host_addr : n0),
      .rdata(state_read)
  );
  nc_ram #(
      .WIDTH(26),
      .DEPTH(N)
  ) params (
      .clk,
      .we   (params_host_we),
      .waddr(params_addr),
      .wdata(params_wdata),
      .raddr(params_host ? params_addr : n0),
      .rdata(params_read)
  );
  assign host_u = host_v[23:0];
  assign host_state = {host_v_we ? host_v : e2_state[53:24], host_u_we ? host_u : e2_state[23:0]};
  assign {v_rdata, u_rdata} = e2_state;
  assign params_rdata = e2_params;
  always_ff @(posedge clk) begin
    e2_state <= state_read;
    e2_params <= params_read;
  end

  logic [23:0] e2_u, e2_v;
  logic [5:0] e2_refr;
  logic [TX-1:0] e2_type;
  assign {e2_refr, e2_v, e2_u} = e2_state;
  assign e2_type = e2_params[20+TX-1:20];

  // --- the type table, in three parts by the stage that needs them: e3; e11 (leak); e12 (vth, soft, refr)
  logic [TX-1:0] e10_type, e11_type, type_waddr;
  logic [1:0] type_part;
  logic [35:0] type_item;
  logic type_we;
  logic [2:0] item_we;
  logic [12:0] du, dv;
  logic [7:0] gain;
  logic [3:0] ishift;
  logic [5:0] level, refr_of_type;
  logic [19:0] leak;
  logic [23:0] vth;
  logic subtract;
  nc_near #(.WIDTH(TX + 39)) types_bus (
      .clk, .d({types_we, bus_addr[TX+1:0], bus_wdata}), .q({type_we, type_waddr, type_part, type_item})
  );
  assign item_we = {type_we && type_part == 2'd2, type_we && type_part == 2'd1, type_we && type_part == 2'd0};
  nc_lutram #(.WIDTH(26), .DEPTH(TYPES)) item0_early (
      .clk, .we(item_we[0]), .waddr(type_waddr), .wdata(type_item[25:0]), .raddr(e2_type), .rdata({dv, du})
  );
  nc_lutram #(.WIDTH(12), .DEPTH(TYPES)) item1_early (
      .clk, .we(item_we[1]), .waddr(type_waddr), .wdata(type_item[35:24]), .raddr(e2_type), .rdata({ishift, gain})
  );
  nc_lutram #(.WIDTH(6), .DEPTH(TYPES)) item2_early (
      .clk, .we(item_we[2]), .waddr(type_waddr), .wdata(type_item[25:20]), .raddr(e2_type), .rdata(level)
  );
  nc_lutram #(.WIDTH(20), .DEPTH(TYPES)) item2_leak (
      .clk, .we(item_we[2]), .waddr(type_waddr), .wdata(type_item[19:0]), .raddr(e10_type), .rdata(leak)
  );
  nc_lutram #(.WIDTH(7), .DEPTH(TYPES)) item0_late (
      .clk, .we(item_we[0]), .waddr(type_waddr), .wdata(type_item[32:26]), .raddr(e11_type), .rdata({subtract, refr_of_type})
  );
  nc_lutram #(.WIDTH(24), .DEPTH(TYPES)) item1_late (
      .clk, .we(item_we[1]), .waddr(type_waddr), .wdata(type_item[23:0]), .raddr(e11_type), .rdata(vth)
  );
  nc_delay #(.WIDTH(TX), .STEPS(8)) types (.clk, .d(e2_type), .q(e10_type));

  // --- e3: signs, magnitudes, factors. A neuron that rests keeps v: no decay, and nothing is added.
  logic [12:0] e3_keep_u, e3_keep_v;
  logic [23:0] e3_u, e3_v, e3_acc;
  logic e3_u_negative, e3_v_negative, e3_open, e3_hold;
  logic [7:0] e3_gain, e3_post, decayed;
  logic [3:0] e3_ishift;
  logic [19:0] e3_bias;
  logic [5:0] e3_refr;

  nc_decay decay (
      .x(cell_post),
      .k(k_post),
      .y(decayed)
  );
  always_ff @(posedge clk) begin
    e11_type <= e10_type;
    e3_hold <= e2_refr != 6'd0;
    e3_refr <= e2_refr - 6'd1;
    e3_keep_u <= 13'd4096 - du;
    e3_keep_v <= e2_refr != 6'd0 ? 13'd4096 : 13'd4096 - dv;
    {e3_u_negative, e3_v_negative} <= {e2_u[23], e2_v[23]};
    e3_u <= (e2_u ^ {24{e2_u[23]}}) + {23'd0, e2_u[23]};
    e3_v <= (e2_v ^ {24{e2_v[23]}}) + {23'd0, e2_v[23]};
    e3_acc <= cell_acc;
    {e3_gain, e3_ishift} <= {gain, ishift};
    e3_bias <= e2_refr != 6'd0 ? 20'd0 : e2_params[19:0];
    e3_open <= steps >= level && (any_level || over < {1'b0, level});
    e3_post <= learn && steps >= level && (any_level || over < {1'b0, level}) ? decayed : cell_post;
  end

  // what is needed as it is further on
  logic e5_u_negative, e5_v_negative, e5_open, e5_hold, e13_open;
  logic [3:0] e5_ishift;
  logic [19:0] e5_bias;
  logic [5:0] e5_refr, e13_refr;
  logic [7:0] e5_post, e13_post;
  logic [23:0] e13_u;
  nc_delay #(.WIDTH(42), .STEPS(2)) to_e5 (
      .clk, .d({e3_u_negative, e3_v_negative, e3_open, e3_hold, e3_ishift, e3_bias, e3_refr, e3_post}),
      .q({e5_u_negative, e5_v_negative, e5_open, e5_hold, e5_ishift, e5_bias, e5_refr, e5_post})
  );
  nc_delay #(.WIDTH(15), .STEPS(8)) to_e13 (
      .clk, .d({e5_open, e5_refr, e5_post}), .q({e13_open, e13_refr, e13_post})
  );

  // --- e4: products of halves, as no multiplier is 24 bits wide everywhere
  // verilator lint_off UNUSEDSIGNAL
  logic [24:0] e4_u_high, e4_u_low, e4_v_high, e4_v_low;
  logic signed [20:0] e4_in_high;
  // verilator lint_on UNUSEDSIGNAL
  logic [19:0] e4_in_low;
  always_ff @(posedge clk) begin
    e4_u_high <= e3_u[23:12] * e3_keep_u;
    e4_u_low <= e3_u[11:0] * e3_keep_u;
    e4_v_high <= e3_v[23:12] * e3_keep_v;
    e4_v_low <= e3_v[11:0] * e3_keep_v;
    e4_in_high <= $signed(e3_acc[23:12]) * $signed({1'b0, e3_gain});
    e4_in_low <= e3_acc[11:0] * e3_gain;
  end

  // --- e5: (|x| * keep) >> 12, and a * gain
  logic [23:0] e5_u, e5_v;
  logic signed [31:0] e5_in;
  always_ff @(posedge clk) begin
    e5_u <= e4_u_high[23:0] + {11'd0, e4_u_low[24:12]};
    e5_v <= e4_v_high[23:0] + {11'd0, e4_v_low[24:12]};
    e5_in <= {e4_in_high[19:0], 12'd0} + {12'd0, e4_in_low};
  end

  // --- e6: the input shifted. Where it leaves 26 bits u saturates whatever it was.
  logic [31:0] spread;        // bits that differ from the sign
  logic [14:0] shifted_out;
  logic [25:0] shifted;
  logic fits, e6_over, e6_in_negative;
  logic [25:0] e6_in;
  logic [23:0] e6_u;
  logic [24:0] e6_v;          // decayed, with the bias
  // Where a sign decides between a sum and a difference, a bit below the lowest carries the one of the complement in.
  // verilator lint_off UNUSEDSIGNAL
  logic e6_carry, e7_carry, e11_carry;
  // verilator lint_on UNUSEDSIGNAL
  logic e6_u_negative, e6_hold;
  assign spread = e5_in ^ {32{e5_in[31]}};
  // bits 24 down to 10 are lost as the shift grows from 1 to 15; those above never fit
  always_comb begin
    for (int i = 0; i < 15; i++) shifted_out[i] = spread[24-i] && e5_ishift > 4'(i);
  end
  assign fits = spread[31:25] == 7'd0 && shifted_out == 15'd0;
  assign shifted = e5_in[25:0] << e5_ishift;
  always_ff @(posedge clk) begin
    {e6_in, e6_over, e6_in_negative} <= {shifted, !fits, e5_in[31]};
    {e6_v, e6_carry} <= {{5{e5_bias[19]}}, e5_bias, 1'b1} + {{1'b0, e5_v} ^ {25{e5_v_negative}}, e5_v_negative};
    {e6_u, e6_u_negative, e6_hold} <= {e5_u, e5_u_negative, e5_hold};
  end

  // --- e7, e8: u
  logic [26:0] e7_u;
  logic [24:0] e8_v;
  logic [23:0] e8_u, e8_more;  // what v gets of it: nothing where the neuron rests
  logic e7_hold, e7_over, e7_in_negative, e8_hold, e8_saturated, u_fits, u_negative;
  assign u_negative = e7_over ? e7_in_negative : e7_u[26];
  assign u_fits = !e7_over && (e7_u[26:23] == 4'b0000 || e7_u[26:23] == 4'b1111) && e7_u[23:0] != 24'h800000;
  always_ff @(posedge clk) begin
    {e7_u, e7_carry} <= {e6_in[25], e6_in, 1'b1} + {{3'd0, e6_u} ^ {27{e6_u_negative}}, e6_u_negative};
    {e7_hold, e7_over, e7_in_negative} <= {e6_hold, e6_over, e6_in_negative};
    e8_u <= u_fits ? e7_u[23:0] : u_negative ? BOTTOM : TOP;
    e8_more <= e7_hold ? 24'd0 : u_fits ? e7_u[23:0] : u_negative ? BOTTOM : TOP;
    e8_saturated <= !u_fits;
    e8_hold <= e7_hold;
  end
  nc_delay #(.WIDTH(25), .STEPS(2)) v_to_e8 (.clk, .d(e6_v), .q(e8_v));

  nc_delay #(.WIDTH(24), .STEPS(5)) u_to_e13 (.clk, .d(e8_u), .q(e13_u));

  // --- e9, e10: v
  logic [25:0] e9_v;
  logic [23:0] e10_v;
  logic e9_hold, e9_saturated, e10_hold, e10_saturated, v_fits;
  assign v_fits = e9_hold || ((e9_v[25:23] == 3'b000 || e9_v[25:23] == 3'b111) && e9_v[23:0] != 24'h800000);
  always_ff @(posedge clk) begin
    e9_v <= {e8_v[24], e8_v} + {{2{e8_more[23]}}, e8_more};
    e9_hold <= e8_hold;
    e9_saturated <= e8_saturated;
    e10_v <= v_fits ? e9_v[23:0] : e9_v[25] ? BOTTOM : TOP;
    e10_saturated <= e9_saturated || !v_fits;
    e10_hold <= e9_hold;
  end

  // --- e11, e12: the linear leak, towards 0 and not past it
  logic [24:0] e11_v;
  logic [23:0] e12_v, e12_vth;
  logic e11_negative, e11_hold, e11_saturated, e12_hold, e12_saturated, e12_soft;
  logic [5:0] e12_refr_of_type;
  logic [19:0] loss;
  assign loss = e10_hold ? 20'd0 : leak;
  always_ff @(posedge clk) begin
    {e11_v, e11_carry} <= {e10_v[23], e10_v, 1'b1} + {{5'd0, loss} ^ {25{!e10_v[23]}}, !e10_v[23]};
    e11_negative <= e10_v[23];
    {e11_hold, e11_saturated} <= {e10_hold, e10_saturated};
    e12_v <= e11_negative == e11_v[24] ? e11_v[23:0] : 24'd0;
    {e12_vth, e12_soft, e12_refr_of_type} <= {vth, subtract, refr_of_type};
    {e12_hold, e12_saturated} <= {e11_hold, e11_saturated};
  end

  // --- e13, e14: fire and reset
  logic [24:0] e13_rest;
  logic [23:0] e13_v;
  logic e13_hold, e13_saturated, e13_soft, e14_fired, fire, rest_fits;
  logic [5:0] e13_refr_of_type;
  logic [8:0] more;
  logic [15:0] route_read;
  logic [30:0] earlier;

  assign fire = !e13_rest[24] && e13_rest != 25'd0 && e13_open && !e13_hold;
  assign rest_fits = e13_rest[24:23] == 2'b00;  // above 0 where the neuron fires
  assign more = {1'b0, e13_post} + {1'b0, inc_post};
  always_ff @(posedge clk) begin
    e13_rest <= {e12_v[23], e12_v} - {e12_vth[23], e12_vth};
    {e13_v, e13_hold, e13_saturated, e13_soft, e13_refr_of_type} <= {e12_v, e12_hold, e12_saturated, e12_soft, e12_refr_of_type};

    e14_state[23:0] <= e13_u;
    e14_state[47:24] <= !fire ? e13_v : !e13_soft ? 24'd0 : rest_fits ? e13_rest[23:0] : TOP;
    e14_state[53:48] <= fire ? e13_refr_of_type : e13_hold ? e13_refr : 6'd0;
    state_we <= valid[13] && e13_open;
    cell_we <= valid[13];
    cell_wpost <= !fire || !learn ? e13_post : !add_post ? inc_post : more[8] ? 8'd255 : more[7:0];
    e14_fired <= fire;
    saturated <= valid[13] && e13_open && (e13_saturated || (fire && e13_soft && !rest_fits));
    spike_route <= route_read;
    if (valid[14]) earlier <= {e14_fired, earlier[30:1]};
    if (rst) {state_we, cell_we, saturated} <= '0;
  end
  assign cell_waddr = n14;
  assign fired_we = valid[14] && n14[4:0] == 5'd31;
  assign fired_waddr = n14[NX-1:5];
  assign fired_wdata = {e14_fired, earlier};
  assign spike = valid[14] && e14_fired;
  assign spike_neuron = n14;
  assign routes_rdata = spike_route;

  logic routes_host, routes_host_we;
  logic [NX-1:0] routes_addr;
  logic [15:0] routes_wdata;
  nc_near #(.WIDTH(NX + 18)) routes_bus (
      .clk, .d({bus_active, routes_we, bus_addr[NX-1:0], bus_wdata[15:0]}), .q({routes_host, routes_host_we, routes_addr, routes_wdata})
  );
  nc_ram #(
      .WIDTH(16),
      .DEPTH(N)
  ) routes (
      .clk,
      .we   (routes_host_we),
      .waddr(routes_addr),
      .wdata(routes_wdata),
      .raddr(routes_host ? routes_addr : n12),
      .rdata(route_read)
  );
endmodule
