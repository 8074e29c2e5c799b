// The synapse pipeline. D: one synapse a clock is added to its target's accumulator, and depressed where its row has a
// rule. L: four words a clock are potentiated where their targets fired.
//
//   s0 address           s3 targets          s5 accumulator, post trace   s7 dw        s9 word to write
//   s1 block RAM         s4 accumulator RAM,  s6 sum, product              s8 new weight
//   s2 words of 4 banks     fired bits
module nc_deliver #(
    parameter int N = 1024,
    parameter int W = 65536,
    parameter int NX = $clog2(N),
    parameter int WX = $clog2(W)
) (
    input  logic          clk,
    input  logic          rst,
    input  logic          learning,      // phase L
    input  logic          op_valid,
    input  logic          op_header,
    input  logic [   1:0] op_kind,
    input  logic          op_half,
    input  logic          op_last,
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
    // host, and RESTART
    input  logic          bus_active,
    input  logic [  15:0] bus_addr,
    input  logic [  24:0] bus_wdata,
    input  logic          words_we,
    output logic [  17:0] words_rdata,
    input  logic          acc_we,
    input  logic          post_we,
    output logic [  31:0] fired_rdata,
    input  logic          rules_we,
    input  logic          zero_we
);
  localparam logic [1:0] SPARSE = 2'd0, DENSE = 2'd1, ONE = 2'd3;

  // --- s0, s1, s2: the four banks
  logic [15:0] s0_addr;
  logic [WX-3:0] s1_row, s2_row, s3_row, s4_row, s5_row, s6_row, s7_row, s8_row, s9_row;
  logic [17:0] read0, read1, read2, read3, word0, word1, word2, word3, word;
  logic [17:0] lane_wdata[4];
  logic [3:0] lane_we;
  logic s1_valid, s1_header, s1_half, s1_last, s2_valid, s2_header, s2_half, s2_last;
  logic [1:0] s1_kind, s1_bank, s2_kind, s2_bank;
  logic [9:0] s1_target, s2_target;
  logic [7:0] s1_weight, s1_pre, s2_weight, s2_pre;
  logic [2:0] s1_shift, s1_rule, s2_shift, s2_rule;
  logic [3:0] s1_lanes, s2_lanes;

  assign s0_addr = bus_active ? bus_addr : op_addr;

  for (genvar i = 0; i < 4; i++) begin : bank
    logic [17:0] read;
    nc_ram #(
        .WIDTH(18),
        .DEPTH(W / 4)
    ) ram (
        .clk,
        .we   (lane_we[i]),
        .waddr(s9_row),
        .wdata(lane_wdata[i]),
        .raddr(s0_addr[WX-1:2]),
        .rdata(read)
    );
  end
  assign {read3, read2, read1, read0} = {bank[3].read, bank[2].read, bank[1].read, bank[0].read};

  always_ff @(posedge clk) begin
    {s1_valid, s1_header, s1_half, s1_last, s1_kind} <= {op_valid, op_header, op_half, op_last, op_kind};
    {s1_target, s1_weight, s1_shift, s1_rule, s1_pre, s1_lanes} <= {op_target, op_weight, op_shift, op_rule, op_pre, op_lanes};
    {s1_row, s1_bank} <= s0_addr[WX-1:0];
    {s2_valid, s2_header, s2_half, s2_last, s2_kind} <= {s1_valid, s1_header, s1_half, s1_last, s1_kind};
    {s2_target, s2_weight, s2_shift, s2_rule, s2_pre, s2_lanes} <= {s1_target, s1_weight, s1_shift, s1_rule, s1_pre, s1_lanes};
    {s2_row, s2_bank} <= {s1_row, s1_bank};
    {word3, word2, word1, word0} <= {read3, read2, read1, read0};
    if (rst) {s1_valid, s2_valid} <= '0;
  end

  // --- s3: targets and the weight; the header of a DENSE row sets where its targets begin
  logic s3_valid, s3_half, s3_last, s3_pair;
  logic [9:0] dense_target, s3_target0, s3_target1, s3_target2, s3_target3, lane_target;
  logic [7:0] s3_weight, s3_pre;
  logic [2:0] s3_shift, s3_rule;
  logic [3:0] s3_lanes;
  logic [17:0] s3_word0, s3_word1, s3_word2, s3_word3;
  logic dense;

  always_comb begin
    case (s2_bank)
      2'd0: word = word0;
      2'd1: word = word1;
      2'd2: word = word2;
      default: word = word3;
    endcase
  end
  assign words_rdata = word;
  assign dense = s2_kind == DENSE;
  assign lane_target = dense_target + {9'd0, s2_half};

  always_ff @(posedge clk) begin
    if (s2_valid && s2_header) dense_target <= learning ? word[17:8] - 10'd2 : word[17:8];
    else if (s2_valid && !learning) dense_target <= dense_target + 10'd1;
    else if (s2_valid && s2_half) dense_target <= dense_target + 10'd8;
    if (learning) begin
      s3_target0 <= dense ? lane_target : word0[17:8];
      s3_target1 <= dense ? lane_target + 10'd2 : word1[17:8];
    end else begin
      s3_target0 <= dense ? dense_target : s2_kind == SPARSE ? word[17:8] : s2_target;
      s3_target1 <= gate_neuron;
    end
    s3_target2 <= dense ? lane_target + 10'd4 : word2[17:8];
    s3_target3 <= dense ? lane_target + 10'd6 : word3[17:8];
    s3_weight <= s2_kind == ONE ? s2_weight : s2_half ? word[15:8] : word[7:0];
    s3_lanes <= s2_lanes;
    if (!learning) begin
      for (int i = 0; i < 4; i++) s3_lanes[i] <= s2_bank == 2'(i);
    end
    {s3_word3, s3_word2, s3_word1, s3_word0} <= {word3, word2, word1, word0};
    s3_valid <= s2_valid && !s2_header;
    {s3_half, s3_last, s3_pair, s3_shift, s3_rule, s3_pre} <= {s2_half, s2_last, s2_kind != SPARSE, s2_shift, s2_rule, s2_pre};
    s3_row <= s2_row;
    if (rst) s3_valid <= 1'b0;
  end

  // --- s4: the accumulator's RAM, who fired, the rule
  logic s4_valid, s4_half, s4_last, s4_pair;
  logic [NX-1:0] s4_target;
  logic signed [14:0] s4_value;
  logic [7:0] s4_pre;
  logic [2:0] s4_rule;
  logic [3:0] s4_lanes, fired;
  logic [17:0] s4_word0, s4_word1, s4_word2, s4_word3;
  logic [39:0] lane_targets;

  assign lane_targets = {s3_target3, s3_target2, s3_target1, s3_target0};
  for (genvar i = 0; i < 4; i++) begin : who
    nc_bits #(
        .N(N)
    ) store (
        .clk,
        .we   (fired_we),
        .waddr(fired_waddr),
        .wdata(fired_wdata),
        .raddr(lane_targets[10*i+:NX]),
        .rdata(fired[i])
    );
  end
  nc_lutram #(
      .WIDTH(32),
      .DEPTH(N / 32)
  ) fired_words (
      .clk,
      .we   (fired_we),
      .waddr(fired_waddr),
      .wdata(fired_wdata),
      .raddr(bus_addr[NX-6:0]),
      .rdata(fired_rdata)
  );
  assign gate_fired  = fired[1];

  always_ff @(posedge clk) begin
    s4_value <= $signed({{7{s3_weight[7]}}, s3_weight}) <<< s3_shift;
    s4_target <= s3_target0[NX-1:0];
    {s4_valid, s4_half, s4_last, s4_pair, s4_rule, s4_pre} <= {s3_valid, s3_half, s3_last, s3_pair, s3_rule, s3_pre};
    {s4_lanes, s4_row} <= {s3_lanes, s3_row};
    {s4_word3, s4_word2, s4_word1, s4_word0} <= {s3_word3, s3_word2, s3_word1, s3_word0};
    if (rst) s4_valid <= 1'b0;
  end

  // --- s5, s6: the sum. Three sums are on their way to the RAM when a target is read, and are forwarded.
  logic s5_valid, s5_half, s5_last, s5_pair, s5_rect, s5_again, s6_valid, s6_half, s6_last, s6_pair, s6_rect, s7_add;
  logic s6_add, wrapped;
  logic [NX-1:0] s5_target, s6_target, s7_target;
  logic signed [14:0] s5_value;
  logic [31:0] cell_read;
  logic [23:0] s5_acc, s6_sum, s7_sum, operand, sum;
  logic [7:0] s5_post, s6_post, s7_post, s5_pre, s5_coefficient, s6_coefficient;
  logic [2:0] s5_rule, s6_rule;
  logic [3:0] s5_lanes, s6_lanes, s5_shift, s6_shift;
  logic [17:0] s5_word0, s5_word1, s5_word2, s5_word3, s6_word0, s6_word1, s6_word2, s6_word3;
  logic [24:0] rule_read;
  logic [15:0] s6_product;
  logic s6_some;
  logic [7:0] trace;

  nc_ram #(
      .WIDTH(32),
      .DEPTH(N)
  ) cells (
      .clk,
      .we(s6_add || cell_we || acc_we || post_we || zero_we),
      .waddr(bus_active ? bus_addr[NX-1:0] : cell_we || zero_we ? cell_waddr : s6_target),
      .wdata({
        zero_we ? 8'd0 : bus_active ? (post_we ? bus_wdata[7:0] : s5_post) : cell_we ? cell_wpost : s6_post,
        zero_we || cell_we ? 24'd0 : bus_active ? (acc_we ? bus_wdata[23:0] : s5_acc) : s6_sum
      }),
      .raddr(bus_active ? bus_addr[NX-1:0] : update ? cell_raddr : s3_target0[NX-1:0]),
      .rdata(cell_read)
  );
  assign cell_acc  = s5_acc;
  assign cell_post = s5_post;

  assign operand = s5_again ? s6_sum : s5_acc;
  assign sum = operand + {{9{s5_value[14]}}, s5_value};
  assign wrapped = operand[23] == s5_value[14] && sum[23] != operand[23];
  assign trace = learning ? s5_pre : s5_post;

  always_ff @(posedge clk) begin
    // the sums that s6 and s7 hold are newer than what was read; the next one is taken when it is there, at s5_again
    if (s6_add && s6_target == s4_target) s5_acc <= s6_sum;
    else if (s7_add && s7_target == s4_target) s5_acc <= s7_sum;
    else s5_acc <= cell_read[23:0];
    s5_post <= s7_add && s7_target == s4_target ? s7_post : cell_read[31:24];
    s5_again <= s5_valid && !learning && s5_target == s4_target;
    {s5_valid, s5_target, s5_value, s5_pre} <= {s4_valid, s4_target, s4_value, s4_pre};
    {s5_half, s5_last, s5_pair, s5_rule, s5_lanes, s5_row} <= {s4_half, s4_last, s4_pair, s4_rule, s4_lanes & (learning ? fired : 4'b1111), s4_row};
    {s5_word3, s5_word2, s5_word1, s5_word0} <= {s4_word3, s4_word2, s4_word1, s4_word0};
    s5_coefficient <= learning ? rule_read[7:0] : rule_read[15:8];
    s5_shift <= learning ? rule_read[19:16] : rule_read[23:20];
    s5_rect <= rule_read[24];

    {s6_valid, s6_target, s6_sum, s6_post} <= {s5_valid, s5_target, sum, s5_post};
    s6_add <= s5_valid && !learning;
    {s6_half, s6_last, s6_pair, s6_rule, s6_lanes, s6_row} <= {s5_half, s5_last, s5_pair, s5_rule, s5_lanes, s5_row};
    {s6_word3, s6_word2, s6_word1, s6_word0} <= {s5_word3, s5_word2, s5_word1, s5_word0};
    {s6_coefficient, s6_shift, s6_rect} <= {s5_coefficient, s5_shift, s5_rect};
    s6_product <= s5_coefficient * trace;
    s6_some <= trace != 8'd0;
    {s7_add, s7_target, s7_sum, s7_post} <= {s6_add, s6_target, s6_sum, s6_post};
    counts_synapse <= s5_valid && !learning;
    counts_wrap <= s5_valid && !learning && wrapped;
    if (rst) {s5_valid, s6_valid, s6_add, s7_add} <= '0;
  end

  // --- rules: what s5 needs, and the bounds that s8 needs
  logic [2:0] s7_rule;
  logic [15:0] bounds;
  nc_lutram #(
      .WIDTH(25),
      .DEPTH(8)
  ) rules (
      .clk,
      .we   (rules_we && !bus_addr[0]),
      .waddr(bus_addr[3:1]),
      .wdata(bus_wdata[24:0]),
      .raddr(s4_rule),
      .rdata(rule_read)
  );
  nc_lutram #(
      .WIDTH(16),
      .DEPTH(8)
  ) rule_bounds (
      .clk,
      .we   (rules_we && bus_addr[0]),
      .waddr(bus_addr[3:1]),
      .wdata(bus_wdata[15:0]),
      .raddr(s7_rule),
      .rdata(bounds)
  );

  // --- s7: the change; s8, s9: the lanes
  logic s7_valid, s7_half, s7_last, s7_pair;
  logic [15:0] amount;
  logic [8:0] s7_dw;
  logic [3:0] s7_lanes, enable;
  logic [17:0] s7_word0, s7_word1, s7_word2, s7_word3;
  logic [7:0] s8_bound;
  logic [71:0] s7_words;

  assign amount = s6_rect ? (s6_some ? {8'd0, s6_coefficient} : 16'd0) : s6_product >> s6_shift;
  always_ff @(posedge clk) begin
    s7_dw <= amount[15:8] != 8'd0 ? 9'd256 : {1'b0, amount[7:0]};
    {s7_valid, s7_half, s7_last, s7_pair, s7_rule, s7_lanes, s7_row} <= {s6_valid, s6_half, s6_last, s6_pair, s6_rule, s6_lanes, s6_row};
    {s7_word3, s7_word2, s7_word1, s7_word0} <= {s6_word3, s6_word2, s6_word1, s6_word0};
    s8_bound <= learning ? bounds[15:8] : bounds[7:0];
    s8_row <= s7_row;
    s9_row <= bus_active ? bus_addr[WX-1:2] : s8_row;
    if (rst) s7_valid <= 1'b0;
  end
  assign enable = s7_lanes & {4{s7_valid && s7_rule != 3'd0 && s7_dw != 9'd0}};
  assign s7_words = {s7_word3, s7_word2, s7_word1, s7_word0};

  for (genvar i = 0; i < 4; i++) begin : lanes
    nc_lane lane (
        .clk,
        .enable(enable[i]),
        .valid (s7_valid),
        .pair  (s7_pair),
        .half  (s7_half),
        .last  (s7_last),
        .down  (!learning),
        .word  (s7_words[18*i+:18]),
        .dw    (s7_dw),
        .bound (s8_bound),
        .bus_active,
        .bus_we(words_we && bus_addr[1:0] == 2'(i)),
        .bus_wdata(bus_wdata[17:0]),
        .we    (lane_we[i]),
        .wdata (lane_wdata[i])
    );
  end

  logic s8_valid, s9_valid;
  always_ff @(posedge clk) begin
    counts_down <= !learning && enable != 4'd0;
    counts_up <= learning ? {2'd0, enable[0]} + {2'd0, enable[1]} + {2'd0, enable[2]} + {2'd0, enable[3]} : 3'd0;
    s8_valid <= s7_valid && !rst;
    s9_valid <= s8_valid && !rst;
  end
  assign working = op_valid || s1_valid || s2_valid || s3_valid || s4_valid || s5_valid || s6_valid || s7_valid || s8_valid || s9_valid;
endmodule
