// The counters: 16 words of a small RAM that an adder visits one a clock. What happens between two visits is kept in a few
// bits each. Words 1 and 5 are the high halves of 0 and 4.
module nc_count (
    input  logic         clk,
    input  logic         rst,
    input  logic         clear,     // for 20 clocks: all words are 0 then
    // verilator lint_off UNUSEDSIGNAL
    input  logic [ 13:0] count,     // counters that go up by one; 1, 5 and 9 are not counted here
    // verilator lint_on UNUSEDSIGNAL
    input  logic [  2:0] count_up,  // counter 9 by 0 to 4
    input  logic [  3:0] bus_addr,
    output logic [ 31:0] bus_rdata  // 20 clocks after bus_addr
);
  logic [3:0] at, at1;
  logic [6:0] waiting[16];
  logic [6:0] waiting1;
  logic [31:0] read, read1, sum;
  logic carry, carry_out;
  logic [4:0] after_reset;
  logic clearing;

  nc_lutram #(
      .WIDTH(32),
      .DEPTH(16)
  ) words (
      .clk,
      .we   (1'b1),
      .waddr(at1),
      .wdata(sum),
      .raddr(at),
      .rdata(read)
  );

  assign clearing = clear || after_reset != 5'd0;
  assign {carry_out, sum} = {1'b0, read1} + {26'd0, waiting1} + {32'd0, carry};

  for (genvar i = 0; i < 16; i++) begin : part
    if (i == 1 || i == 5 || i >= 14) begin : none
      assign waiting[i] = 7'd0;
    end else begin : some
      localparam int BITS = i == 9 ? 7 : 5;
      logic [BITS-1:0] kept, more;
      assign more = i == 9 ? {{(BITS - 3) {1'b0}}, count_up} : {{(BITS - 1) {1'b0}}, count[i]};
      always_ff @(posedge clk) kept <= rst || clearing ? '0 : at == 4'(i) ? more : kept + more;
      assign waiting[i] = {{(7 - BITS) {1'b0}}, kept};
    end
  end

  always_ff @(posedge clk) begin
    at <= at + 4'd1;
    {at1, read1, waiting1} <= {at, read, waiting[at]};
    carry <= carry_out && (at1 == 4'd0 || at1 == 4'd4);
    if (clearing) {read1, waiting1, carry} <= '0;
    if (at1 == bus_addr) bus_rdata <= sum;
    if (after_reset != 5'd0) after_reset <= after_reset - 5'd1;
    if (rst) after_reset <= 5'd20;
    if (rst) at <= 4'd0;
  end
endmodule
