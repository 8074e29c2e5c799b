// A queue in look-up tables. `rdata` is its head while it is not empty. Pushing into a full one or popping an empty one
// is a mistake of the caller; `count` lets callers keep room for what is still in their pipelines.
module nc_fifo #(
    parameter int WIDTH = 8,
    parameter int DEPTH = 8,
    parameter int AW = $clog2(DEPTH)
) (
    input  logic             clk,
    input  logic             rst,
    input  logic             push,
    input  logic [WIDTH-1:0] wdata,
    input  logic             pop,
    output logic [WIDTH-1:0] rdata,
    output logic             empty,
    output logic             full,
    output logic [AW:0]      count
);
  logic [AW:0] head, tail;  // one bit more than an address tells full from empty

  nc_lutram #(
      .WIDTH(WIDTH),
      .DEPTH(DEPTH)
  ) store (
      .clk,
      .we   (push),
      .waddr(tail[AW-1:0]),
      .wdata,
      .raddr(head[AW-1:0]),
      .rdata
  );

  assign count = tail - head;
  assign full  = count[AW];
  assign empty = head == tail;

  always_ff @(posedge clk) begin
    if (push) tail <= tail + 1'b1;
    if (pop) head <= head + 1'b1;
    if (rst) begin
      head <= '0;
      tail <= '0;
    end
  end
endmodule
