// Frames out of bytes: COBS, CRC, and a ring that holds the whole frames until they have been dealt with.
//
// Bytes go into the ring as they are decoded; only a frame whose CRC is right is committed, with its length in front
// (number, op and payload), and all others leave no trace but a pulse on `bad`. A decoded frame never takes more of the
// ring than it took on the line, so a host that has at most DEPTH bytes under way cannot overrun it.
module nc_cobs_rx #(
    parameter int DEPTH = 2048
) (
    input  logic       clk,
    input  logic       rst,
    // bytes of the line
    input  logic       valid,
    input  logic       broken,   // a byte was lost here
    input  logic [7:0] data,
    output logic       ready,
    // the oldest frame: its bytes by number, one clock behind `index`; byte 0 is the length
    output logic       frame,
    input  logic [7:0] index,
    output logic [7:0] value,
    input  logic       drop,     // done with it
    input  logic [7:0] length,   // its length, given back
    // one clock each
    output logic       good,
    output logic       bad
);
  localparam int AW = $clog2(DEPTH);
  localparam logic [31:0] RESIDUE = 32'hdebb20e3;  // of a frame with its right CRC behind it
  localparam logic [7:0] LONGEST = 8'd253;

  logic [AW:0] base, head;  // begin of the oldest frame; behind the last whole frame
  logic [7:0] count;  // bytes decoded of the frame at hand
  logic [7:0] left;  // bytes until the next code
  logic open, wrong;  // something came since the last delimiter; but nothing good

  logic [31:0] crc;
  logic crc_ready, take, is_code, store, ends, whole, full;
  logic [AW:0] place, used;

  assign ready = crc_ready;
  assign take = valid && ready;
  assign ends = take && data == 8'd0;
  assign is_code = left == 8'd0;
  // A code but the first stands for the zero in front of it.
  assign store = take && !ends && (!is_code || open) && !wrong && !full && count != LONGEST;
  assign whole = is_code && !wrong && count > 8'd5 && crc == RESIDUE;
  assign place = head + {{(AW - 7) {1'b0}}, count} + 1'b1;
  assign used = place - base;
  assign full = used[AW];

  nc_crc32 check (
      .clk(clk),
      .clear(rst || ends),
      .valid(store),
      .emit(1'b0),
      .data(is_code ? 8'd0 : data),
      .ready(crc_ready),
      .value(crc)
  );

  nc_ram #(
      .WIDTH(8),
      .DEPTH(DEPTH)
  ) ring (
      .clk(clk),
      .we(store || (ends && whole)),
      .waddr(ends ? head[AW-1:0] : place[AW-1:0]),
      .wdata(ends ? count - 8'd4 : is_code ? 8'd0 : data),
      .raddr(base[AW-1:0] + {{(AW - 8) {1'b0}}, index}),
      .rdata(value)
  );

  assign frame = base != head;

  always_ff @(posedge clk) begin
    good <= 1'b0;
    bad  <= 1'b0;
    if (rst) begin
      base  <= '0;
      head  <= '0;
      count <= 8'd0;
      left  <= 8'd0;
      open  <= 1'b0;
      wrong <= 1'b0;
    end else begin
      if (drop) base <= base + {{(AW - 7) {1'b0}}, length} + 1'b1;
      if (ends) begin
        good  <= open && whole;
        bad   <= (open && !whole) || (!open && wrong);
        if (open && whole) head <= place - (AW + 1)'(4);
        count <= 8'd0;
        left  <= 8'd0;
        open  <= 1'b0;
        wrong <= 1'b0;
      end else if (take) begin
        open  <= 1'b1;
        left  <= is_code ? data - 8'd1 : left - 8'd1;
        if (store) count <= count + 8'd1;
        if (((!is_code || open) && !store) || (is_code && data == 8'hff)) wrong <= 1'b1;
      end
      if (broken) wrong <= 1'b1;
    end
  end
endmodule
