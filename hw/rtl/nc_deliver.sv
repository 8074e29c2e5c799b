// The synapse pipeline. D: one synapse a clock is added to its target's accumulator, and depressed where its row has a
// rule. L: four words a clock are potentiated where their targets fired.
//
//   s1 address      s5 targets, weights     s7 accumulator, post trace   s11 what is added, where the bound is
//   s2, s3 banks    s6 accumulator's RAM,   s8 sum                       s12 sums of the lanes
//   s4 words           fired bits           s9 product, s10 dw           s13 what is written
module nc_deliver #(
    parameter int N = 1024,
    parameter int W = 65536,
    parameter int NX = $clog2(N),
    parameter int WX = $clog2(W)
) (
    input  logic          clk,
    input  logic          rst,
    input  logic          delivering,    // phase D or L
    input  logic          learning,      // phase L
    input  logic          op_valid,
    input  logic          op_header,
    input  logic [   1:0] op_kind,
    input  logic          op_half,
    input  logic [  15:0] op_addr,
    input  logic [   9:0] op_target,
    input  logic [   7:0] op_weight,
    input  logic [   2:0] op_shift,
    input  logic [   2:0] op_rule,
    input  logic [   7:0] op_pre,
    input  logic [   3:0] op_lanes,
    output logic          working,
    input  logic [   9:0] gate_neuron,
    output logic          gate_fired,
    // U reads the accumulator and the trace of a neuron (there two clocks after), and writes them
    input  logic          update,
    input  logic [NX-1:0] cell_raddr,
    output logic [  23:0] cell_acc,
    output logic [   7:0] cell_post,
    input  logic          cell_we,
    input  logic [NX-1:0] cell_waddr,
    input  logic [   7:0] cell_wpost,
    input  logic          fired_we,
    input  logic [NX-6:0] fired_waddr,
    input  logic [  31:0] fired_wdata,
    // what the counters count
    output logic          counts_synapse,
    output logic          counts_wrap,
    output logic          counts_down,
    output logic [   2:0] counts_up,
    // host
    input  logic          bus_active,
    input  logic [  15:0] bus_addr,
    input  logic [  24:0] bus_wdata,
    input  logic          words_we,
    output logic [  17:0] words_rdata,
    input  logic          acc_we,
    input  logic          post_we,
    output logic [  31:0] fired_rdata,
    input  logic          rules_we
);
  localparam logic [1:0] SPARSE = 2'd0, DENSE = 2'd1, ONE = 2'd3;

  // --- s1 to s4: the words of the four banks
  logic [15:0] s1_addr;
  logic [1:0] s4_bank;
  logic [WX-3:0] s12_row, s13_row;
  logic [71:0] words;
  logic [3:0] s13_we_low, s13_we_high;
  logic [35:0] s13_bytes;
  logic s4_header, s4_half, s6_half, s12_half;
  logic [1:0] s4_kind;
  logic [9:0] s4_target;
  logic [7:0] s4_weight, s7_pre;
  logic [2:0] s6_shift, s6_rule;
  logic [3:0] s4_lanes;

  logic [13:1] valid;
  always_ff @(posedge clk) begin
    valid <= {valid[12:5], valid[4] && !s4_header, valid[3:1], op_valid};
    if (rst) valid <= '0;
  end
  assign working = op_valid || valid != '0;

  logic host, host_words_we;
  logic [15:0] host_addr;
  logic [17:0] host_word;
  nc_near #(.WIDTH(36)) words_bus (
      .clk, .d({bus_active, words_we, bus_addr, bus_wdata[17:0]}), .q({host, host_words_we, host_addr, host_word})
  );
  always_ff @(posedge clk) s1_addr <= host ? host_addr : op_addr;
  nc_words #(
      .W(W)
  ) synapses (
      .clk,
      .rrow   (s1_addr[WX-1:2]),
      .words,
      .we_low (s13_we_low),
      .we_high(s13_we_high),
      .wrow   (s13_row),
      .wdata  (s13_bytes)
  );
  // what the host reads is no ONE and no second half
  nc_delay #(.WIDTH(26), .STEPS(4)) to_s4 (
      .clk,
      .d({op_header, op_half && !host, op_kind & {2{!host}}, op_target, op_weight, op_lanes}),
      .q({s4_header, s4_half, s4_kind, s4_target, s4_weight, s4_lanes})
  );
  nc_delay #(.WIDTH(6), .STEPS(6)) to_s6 (.clk, .d({op_shift, op_rule}), .q({s6_shift, s6_rule}));
  nc_delay #(.WIDTH(8), .STEPS(7)) to_s7 (.clk, .d(op_pre), .q(s7_pre));
  nc_delay #(.WIDTH(2), .STEPS(3)) bank_to_s4 (.clk, .d(s1_addr[1:0]), .q(s4_bank));
  nc_delay #(.WIDTH(WX - 2), .STEPS(11)) row_to_s12 (.clk, .d(s1_addr[WX-1:2]), .q(s12_row));

  // --- s5: targets and weights; the header of a DENSE row sets where its targets begin
  logic [9:0] dense_target, further, lane_target, word_target, s5_target0, s5_target1, s5_target2, s5_target3;
  logic [1:0] s5_bank;
  logic [3:0] s5_lanes;
  logic [35:0] s5_bytes;
  logic s5_half, dense, one;

  always_comb begin
    case (s4_bank)
      2'd0: word_target = words[17:8];
      2'd1: word_target = words[35:26];
      2'd2: word_target = words[53:44];
      default: word_target = words[71:62];
    endcase
  end
  assign dense = s4_kind == DENSE;
  assign one = s4_kind == ONE;
  // in L the first word of a row is its header, in whose place two weights would be
  assign further = s4_header ? {10{learning}} & 10'h3fe : learning ? {6'd0, s4_half, 3'd0} : 10'd1;
  assign lane_target = dense_target + {9'd0, s4_half};

  always_ff @(posedge clk) begin
    if (valid[4]) dense_target <= further + (s4_header ? word_target : dense_target);
    if (learning) begin
      s5_target0 <= dense ? lane_target : words[17:8];
      s5_target1 <= dense ? lane_target + 10'd2 : words[35:26];
    end else begin
      s5_target0 <= dense ? dense_target : s4_kind == SPARSE ? word_target : s4_target;
      s5_target1 <= gate_neuron;
    end
    s5_target2 <= dense ? lane_target + 10'd4 : words[53:44];
    s5_target3 <= dense ? lane_target + 10'd6 : words[71:62];
    for (int i = 0; i < 4; i++) begin
      s5_bytes[9*i+:9] <= s4_half ? {words[18*i+17], words[18*i+8+:8]} : {words[18*i+16], words[18*i+:8]};
      s5_lanes[i] <= learning ? s4_lanes[i] : s4_bank == 2'(i);
    end
    if (one) s5_bytes[7:0] <= s4_weight;
    s5_bank <= one ? 2'd0 : s4_bank;
    s5_half <= s4_half;
  end

  // --- s6: the accumulator's RAM, who fired
  logic [NX-1:0] s6_target;
  logic [7:0] weight;
  logic [8:0] s6_less;  // the weight less 1
  logic [3:0] s6_lanes, fired;
  logic [29:0] lane_targets;  // but of lane 1
  logic [31:0] fired_word;
  logic fired1;

  always_comb begin
    case (s5_bank)
      2'd0: weight = s5_bytes[7:0];
      2'd1: weight = s5_bytes[16:9];
      2'd2: weight = s5_bytes[25:18];
      default: weight = s5_bytes[34:27];
    endcase
  end
  assign words_rdata = {word_target, weight};
  assign lane_targets = {s5_target3, s5_target2, s5_target0};
  logic fired_host, near_we;
  logic [NX-6:0] fired_host_addr, near_waddr;
  logic [31:0] near_wdata;
  nc_near #(.WIDTH(NX - 4)) fired_bus (.clk, .d({bus_active, bus_addr[NX-6:0]}), .q({fired_host, fired_host_addr}));
  nc_near #(.WIDTH(NX + 28)) fired_write (
      .clk, .d({fired_we, fired_waddr, fired_wdata}), .q({near_we, near_waddr, near_wdata})
  );
  for (genvar i = 0; i < 4; i++) begin : who
    if (i == 1) begin : words_of_32  // for the host, too
      nc_lutram #(
          .WIDTH(32),
          .DEPTH(N / 32)
      ) store (
          .clk,
          .we   (near_we),
          .waddr(near_waddr),
          .wdata(near_wdata),
          .raddr(fired_host ? fired_host_addr : s5_target1[NX-1:5]),
          .rdata(fired_word)
      );
      always_ff @(posedge clk) fired1 <= fired_word[s5_target1[4:0]];
      assign fired[i] = fired1;
    end else begin : single
      nc_bits #(
          .N(N)
      ) store (
          .clk,
          .we   (near_we),
          .waddr(near_waddr),
          .wdata(near_wdata),
          .raddr(lane_targets[10*(i == 0 ? 0 : i - 1)+:NX]),
          .rdata(fired[i])
      );
    end
  end
  assign fired_rdata = fired_word;

  always_ff @(posedge clk) begin
    gate_fired <= fired1;
    s6_less <= {weight[7], weight} - 9'd1;
    s6_target <= s5_target0[NX-1:0];
    {s6_lanes, s6_half} <= {s5_lanes, s5_half};
  end

  // --- s7, s8: the sum. Three sums are on their way to the RAM when a target is read, and are forwarded.
  logic s7_rect, s7_again, s8_add, s9_add, wrapped;
  logic [NX-1:0] s7_target, s8_target, s9_target;
  logic signed [15:0] s7_less;  // what is added less 1
  logic [31:0] cell_read;
  logic [23:0] s7_acc, s8_sum, s9_sum, operand, sum;
  logic [7:0] s7_post, s8_post, s9_post, s7_coefficient;
  logic [2:0] s7_rule, s8_rule, s9_rule;
  logic [3:0] s7_lanes, s7_shift, s8_shift, s9_shift;
  logic [24:0] rule_read;
  logic [15:0] s9_product;
  logic cells_host, cells_acc_we, cells_post_we, host_cell;
  logic [NX-1:0] cells_addr;
  logic [23:0] cells_wdata;
  logic [7:0] trace, s8_coefficient, s8_factor;

  nc_near #(.WIDTH(NX + 27)) cells_bus (
      .clk, .d({bus_active, acc_we, post_we, bus_addr[NX-1:0], bus_wdata[23:0]}),
      .q({cells_host, cells_acc_we, cells_post_we, cells_addr, cells_wdata})
  );
  nc_ram #(
      .WIDTH(32),
      .DEPTH(N)
  ) cells (
      .clk,
      .we(s8_add || cell_we || host_cell),
      .waddr(host_cell ? cells_addr : cell_we ? cell_waddr : s8_target),
      .wdata({cell_we ? cell_wpost : s8_post, s8_sum}),
      .raddr(cells_host ? cells_addr : update ? cell_raddr : s5_target0[NX-1:0]),
      .rdata(cell_read)
  );
  assign cell_acc  = s7_acc;
  assign cell_post = s7_post;

  // s8 is 0 where U wants to write that, and has what the host writes, one clock after
  assign operand = cells_acc_we ? cells_wdata : s7_again ? s8_sum : s7_acc;
  // a difference of complements is a sum, of which only one operand needs look-up tables of its own beside the adder
  assign sum = {{8{s7_less[15]}}, s7_less} - ~operand;
  assign wrapped = operand[23] == s7_less[15] && sum[23] != operand[23];
  assign trace = learning ? s7_pre : s7_post;

  always_ff @(posedge clk) begin
    // the sums that s8 and s9 hold are newer than what was read; the next one is taken when it is there, at s7_again
    if (s8_add && s8_target == s6_target) s7_acc <= s8_sum;
    else if (s9_add && s9_target == s6_target) s7_acc <= s9_sum;
    else s7_acc <= cell_read[23:0];
    s7_post <= s9_add && s9_target == s6_target ? s9_post : cell_read[31:24];
    s7_again <= valid[7] && !learning && s7_target == s6_target;
    s7_less <= cells_host ? 16'hffff : ~(~{{7{s6_less[8]}}, s6_less} << s6_shift);
    {s7_target, s7_rule} <= {s6_target, s6_rule};
    s7_lanes <= s6_lanes & (learning ? fired : 4'b1111);
    s7_coefficient <= learning ? rule_read[7:0] : rule_read[15:8];
    s7_shift <= learning ? rule_read[19:16] : rule_read[23:20];
    s7_rect <= rule_read[24];

    {s8_target, s8_rule} <= {s7_target, s7_rule};
    {s8_sum, s8_post} <= {sum, cells_post_we ? cells_wdata[7:0] : s7_post};
    if (!delivering && !cells_host) {s8_sum, s8_post} <= '0;
    host_cell <= (cells_acc_we || cells_post_we) && !rst;
    s8_add <= valid[7] && !learning && !rst;
    s8_shift <= s7_rect ? 4'd0 : s7_shift;
    {s8_coefficient, s8_factor} <= {s7_coefficient, s7_rect ? {7'd0, trace != 8'd0} : trace};
    s9_product <= s8_coefficient * s8_factor;
    {s9_shift, s9_rule} <= {s8_shift, s8_rule};
    {s9_target, s9_sum, s9_post} <= {s8_target, s8_sum, s8_post};
    s9_add <= s8_add && !rst;
    counts_synapse <= valid[7] && !learning;
    counts_wrap <= valid[7] && !learning && wrapped;
  end

  // --- rules: what s7 needs, and the bounds that s11 needs
  logic [15:0] bounds;
  logic host_rule_we, rule_item;
  logic [2:0] host_rule;
  logic [24:0] host_rule_wdata;
  nc_near #(.WIDTH(30)) rules_bus (
      .clk, .d({rules_we, bus_addr[3:0], bus_wdata}), .q({host_rule_we, host_rule, rule_item, host_rule_wdata})
  );
  nc_lutram #(
      .WIDTH(25),
      .DEPTH(8)
  ) rules (
      .clk,
      .we   (host_rule_we && !rule_item),
      .waddr(host_rule),
      .wdata(host_rule_wdata),
      .raddr(s6_rule),
      .rdata(rule_read)
  );
  nc_lutram #(
      .WIDTH(16),
      .DEPTH(8)
  ) rule_bounds (
      .clk,
      .we   (host_rule_we && rule_item),
      .waddr(host_rule),
      .wdata(host_rule_wdata[15:0]),
      .raddr(s9_rule),
      .rdata(bounds)
  );

  // --- s10: the change; s11: what is added, and from where on the bound counts
  logic [15:0] amount;
  logic [8:0] s10_dw;
  logic [7:0] s10_bound, s12_bound, s11_addend, s11_limit;
  logic [3:0] s10_lanes, enable, s11_enable, s12_enable;
  logic s10_plastic, s11_always;

  nc_delay #(.WIDTH(4), .STEPS(3)) lanes_to_s10 (.clk, .d(s7_lanes), .q(s10_lanes));
  assign amount = s9_product >> s9_shift;
  assign enable = s10_lanes & {4{valid[10] && s10_plastic && s10_dw != 9'd0}};
  always_ff @(posedge clk) begin
    s10_dw <= amount[15:8] != 8'd0 ? 9'd256 : {1'b0, amount[7:0]};
    s10_bound <= learning ? bounds[15:8] : bounds[7:0];
    s10_plastic <= s9_rule != 3'd0;
    {s12_enable, s11_enable} <= {s11_enable, enable};

    counts_down <= !learning && enable != 4'd0;
    counts_up <= learning ? {2'd0, enable[0]} + {2'd0, enable[1]} + {2'd0, enable[2]} + {2'd0, enable[3]} : 3'd0;
  end

  nc_change change (
      .clk,
      .down        (!learning),
      .dw          (s10_dw),
      .bound       (s10_bound),
      .addend      (s11_addend),
      .always_below(s11_always),
      .limit       (s11_limit),
      .late_bound  (s12_bound)
  );

  // --- s12, s13: the lanes. A word of the host is written in two clocks, a byte in each.
  logic [35:0] s11_bytes;
  logic host_second, host_we;
  logic [8:0] host_byte;
  assign host_we = host_words_we || host_second;
  assign host_byte = host_second ? {host_word[17], host_word[15:8]} : {host_word[16], host_word[7:0]};

  nc_delay #(.WIDTH(36), .STEPS(6)) bytes_to_s11 (.clk, .d(s5_bytes), .q(s11_bytes));
  nc_delay #(.WIDTH(1), .STEPS(6)) half_to_s12 (.clk, .d(s6_half), .q(s12_half));
  for (genvar i = 0; i < 4; i++) begin : lanes
    nc_lane lane (
        .clk,
        .down        (!learning),
        .data        (s11_bytes[9*i+:9]),
        .addend      (s11_addend),
        .always_below(s11_always),
        .limit       (s11_limit),
        .bound       (s12_bound),
        .bus_we      (host_we),
        .bus_data    (host_byte),
        .wdata       (s13_bytes[9*i+:9])
    );
    always_ff @(posedge clk) begin
      s13_we_low[i]  <= (s12_enable[i] && !s12_half) || (host_words_we && host_addr[1:0] == 2'(i));
      s13_we_high[i] <= (s12_enable[i] && s12_half) || (host_second && host_addr[1:0] == 2'(i));
    end
  end
  always_ff @(posedge clk) begin
    host_second <= host_words_we && !rst;
    s13_row <= host_we ? host_addr[WX-1:2] : s12_row;
  end
endmodule
