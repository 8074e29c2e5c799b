// nc_update behind its multipliers: u, v, refr and the spike are those of the specification, for every decayed u and v,
// input, shift, bias and type. soma.sby cuts the stage e5 loose, so that its values are whatever they like.
module soma (
    input logic clk
);
  logic [4:0] age = '0;
  always @(posedge clk) if (age != 5'd31) age <= age + 5'd1;

  nc_update #(
      .N(64),
      .TYPES(2)
  ) dut (
      .clk,
      .rst(1'b0),
      .bus_active(1'b0),
      .params_we(1'b0),
      .routes_we(1'b0),
      .types_we(1'b0),
      .u_we(1'b0),
      .v_we(1'b0)
  );

  // soma.sby connects these: stage e5; the type's fields at e10 (leak) and e11 (the others); what is written
  (* keep *) logic [23:0] u, v, vth;
  (* keep *) logic signed [31:0] in;
  (* keep *) logic u_negative, v_negative, is_open, hold, soft, fired;
  (* keep *) logic [3:0] ishift;
  (* keep *) logic [19:0] bias, leak;
  (* keep *) logic [5:0] refr, refr_of_type;
  (* keep *) logic [53:0] state;

  // the same, nine clocks later
  localparam int E5 = 24 + 24 + 32 + 4 + 4 + 20 + 6;
  logic [9*E5-1:0] e5;
  logic [4*20-1:0] leaks;
  logic [3*31-1:0] late;
  always @(posedge clk) begin
    e5 <= {e5[8*E5-1:0], u, v, in, u_negative, v_negative, is_open, hold, ishift, bias, refr};
    leaks <= {leaks[3*20-1:0], leak};
    late <= {late[2*31-1:0], vth, soft, refr_of_type};
  end

  logic [23:0] the_u, the_v, the_vth;
  logic signed [31:0] the_in;
  logic the_u_negative, the_v_negative, the_open, the_hold, the_soft;
  logic [3:0] the_ishift;
  logic signed [19:0] the_bias;
  logic [5:0] the_refr, the_refr_of_type;
  assign {the_u, the_v, the_in, the_u_negative, the_v_negative, the_open, the_hold, the_ishift, the_bias, the_refr} = e5[9*E5-1-:E5];
  assign {the_vth, the_soft, the_refr_of_type} = late[3*31-1-:31];

  function automatic logic signed [49:0] sat(input logic signed [49:0] x);
    sat = x > 50'sd8388607 ? 50'sd8388607 : x < -50'sd8388607 ? -50'sd8388607 : x;
  endfunction

  logic signed [49:0] new_u, new_v, leaked, threshold, loss, wide_in, after, decayed_u, decayed_v;
  logic fires;
  always_comb begin
    loss = {30'd0, leaks[4*20-1-:20]};
    decayed_u = {26'd0, the_u};
    if (the_u_negative) decayed_u = -decayed_u;
    decayed_v = {26'd0, the_v};
    if (the_v_negative) decayed_v = -decayed_v;
    threshold = {{26{the_vth[23]}}, the_vth};
    wide_in = the_in;
    new_u = sat(decayed_u + (wide_in <<< the_ishift));
    new_v = sat(decayed_v + new_u + the_bias);
    if (new_v > 50'sd0) leaked = new_v > loss ? new_v - loss : 50'sd0;
    else leaked = -new_v > loss ? new_v + loss : 50'sd0;
    if (the_hold) leaked = decayed_v;
    after = sat(leaked - threshold);
    fires = the_open && !the_hold && leaked > threshold;
  end

  always @(posedge clk) begin
    assume (u <= 24'h800000 && v <= 24'h800000);  // magnitudes
    assume (v_negative || v != 24'h800000); // no such number
    assume (u_negative || u != 24'h800000);
    assume (!hold || bias == 20'd0);  // e3 sees to that
    if (age >= 5'd10) begin
      current : assert (state[23:0] == new_u[23:0]);
      spikes : assert (fired == fires);
      potential : assert (fires || state[47:24] == leaked[23:0]);
      hard_reset : assert (!fires || the_soft || state[47:24] == 24'd0);
      soft_reset : assert (!fires || !the_soft || state[47:24] == after[23:0]);
      rest : assert (state[53:48] == (fires ? the_refr_of_type : the_hold ? the_refr : 6'd0));
      soft_and_saturated : cover (fires && the_soft && leaked - threshold > 50'sd8388607);
      bottom : cover (!the_hold && new_u == -50'sd8388607 && leaked < 50'sd0);
      leaked_away : cover (!the_hold && new_v > 50'sd0 && leaked == 50'sd0);
    end
  end
endmodule
