// Finds the axons of a step. In D it hands out the axons whose bit is set in the slot; in L it takes every axon past its
// trace, updates the trace and hands out those that have one. Either goes through the same pipeline into a queue.
module nc_scan #(
    parameter int A  = 2048,
    parameter int AX = $clog2(A)
) (
    input  logic          clk,
    input  logic          rst,
    input  logic          start,
    input  logic          learning,     // phase L
    input  logic [   3:0] slot,
    output logic          done,         // everything handed out and popped
    // the pending memory
    output logic          take_valid,
    output logic [AX-2:0] take_addr,
    input  logic          take_rvalid,
    input  logic [  31:0] take_word,
    // rules of the traces
    input  logic [   3:0] k_pre,
    input  logic [   7:0] inc_pre,
    input  logic          add_pre,
    // the queue of axons
    output logic          axon_valid,
    output logic [AX-1:0] axon,
    output logic [   7:0] pre,
    input  logic          axon_pop,
    // host
    input  logic          bus_active,
    input  logic [AX-1:0] bus_addr,
    input  logic          bus_we,
    input  logic [   7:0] bus_wdata,
    output logic [   7:0] bus_rdata
);
  localparam int WX = AX - 5;  // words of a slot, as bits of their number

  // --- words of the slot, read ahead; a credit is a place in their queue
  logic [WX:0] next_word;
  logic [WX-1:0] back_word, fifo_word, here_word;
  logic [2:0] word_credit;
  logic keep, load, words_empty, have;
  logic [31:0] fifo_bits, bits;

  assign take_valid = !next_word[WX] && word_credit != 3'd0;
  assign take_addr = {slot, next_word[WX-1:0]};
  assign keep = take_rvalid && (learning || take_word != 32'd0);

  nc_fifo #(
      .WIDTH(WX + 32),
      .DEPTH(4)
  ) words (
      .clk,
      .rst,
      .push (keep),
      .wdata({back_word, take_word}),
      .pop  (load),
      .rdata({fifo_word, fifo_bits}),
      .empty(words_empty),
      // verilator lint_off PINCONNECTEMPTY
      .full (),
      .count()
      // verilator lint_on PINCONNECTEMPTY
  );

  always_ff @(posedge clk) begin
    if (take_valid) next_word <= next_word + 1'b1;
    if (take_rvalid) back_word <= back_word + 1'b1;
    word_credit <= word_credit - {2'd0, take_valid} + {2'd0, take_rvalid && !keep} + {2'd0, load};
    if (start) begin
      next_word <= '0;
      back_word <= '0;
    end
    if (rst) begin
      next_word   <= {1'b1, {WX{1'b0}}};
      word_credit <= 3'd4;
    end
  end

  // --- axons of the word, whose bits are shifted past: in D four at once where none of them is set
  logic [4:0] index;
  logic [3:0] axon_credit;
  logic emit, move, skip, final_bit;

  assign skip = !learning && bits[3:0] == 4'd0;
  assign emit = have && axon_credit != 4'd0 && (learning || bits[0]);
  assign move = emit || (have && !learning && !bits[0]);
  assign final_bit = learning ? index == 5'd31 : bits[31:1] == 31'd0;
  assign load = !words_empty && !have;

  // --- traces: l0 address, l1 RAM, l2 the trace, l3 decayed, l4 what it becomes
  logic l0_valid, l1_valid, l2_valid, l3_valid, l4_valid, l0_active, l3_active;
  logic [AX-1:0] l0_axon, l4_axon;
  logic [7:0] read, l2_pre, l3_pre, l4_pre, decayed;
  logic [8:0] more;
  logic push;

  nc_decay decay (
      .x(l2_pre),
      .k(k_pre),
      .y(decayed)
  );
  assign more = {1'b0, l3_pre} + {1'b0, inc_pre};

  always_ff @(posedge clk) begin
    if (move) begin
      bits  <= skip ? bits >> 4 : bits >> 1;
      index <= index + (skip ? 5'd4 : 5'd1);
      if (final_bit) have <= 1'b0;
    end
    if (load) begin
      have <= 1'b1;
      index <= 5'd0;
      {here_word, bits} <= {fifo_word, fifo_bits};
    end
    {l0_valid, l0_active, l0_axon} <= {emit, bits[0], here_word, index};
    {l4_valid, l3_valid, l2_valid, l1_valid} <= {l3_valid, l2_valid, l1_valid, l0_valid};
    {l3_pre, l2_pre} <= {decayed, read};
    if (!l3_active) l4_pre <= l3_pre;
    else if (!add_pre) l4_pre <= inc_pre;
    else l4_pre <= more[8] ? 8'd255 : more[7:0];
    axon_credit <= axon_credit - {3'd0, emit} + {3'd0, l4_valid && !push} + {3'd0, axon_pop};
    if (rst) begin
      have <= 1'b0;
      {l0_valid, l1_valid, l2_valid, l3_valid, l4_valid} <= '0;
      axon_credit <= 4'd8;
    end
  end

  nc_delay #(.WIDTH(AX), .STEPS(4)) axon_to_l4 (.clk, .d(l0_axon), .q(l4_axon));
  nc_delay #(.WIDTH(1), .STEPS(3)) active_to_l3 (.clk, .d(l0_active), .q(l3_active));

  assign push = l4_valid && (!learning || l4_pre != 8'd0);
  assign bus_rdata = l2_pre;

  logic host, host_we;
  logic [AX-1:0] host_addr;
  logic [7:0] host_wdata;
  nc_near #(.WIDTH(AX + 10)) bus (
      .clk, .d({bus_active, bus_we, bus_addr, bus_wdata}), .q({host, host_we, host_addr, host_wdata})
  );
  nc_ram #(
      .WIDTH(8),
      .DEPTH(A)
  ) traces (
      .clk,
      .we   ((l4_valid && learning) || host_we),
      .waddr(host ? host_addr : l4_axon),
      .wdata(host ? host_wdata : l4_pre),
      .raddr(host ? host_addr : l0_axon),
      .rdata(read)
  );

  // --- the queue
  logic axons_empty;
  nc_fifo #(
      .WIDTH(AX + 8),
      .DEPTH(8)
  ) axons (
      .clk,
      .rst,
      .push,
      .wdata({l4_axon, l4_pre}),
      .pop  (axon_pop),
      .rdata({axon, pre}),
      .empty(axons_empty),
      // verilator lint_off PINCONNECTEMPTY
      .full (),
      .count()
      // verilator lint_on PINCONNECTEMPTY
  );
  assign axon_valid = !axons_empty;
  assign done = next_word[WX] && !have && word_credit == 3'd4 && axon_credit == 4'd8;
endmodule
